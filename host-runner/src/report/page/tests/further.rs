//! Countermeasures, tables beyond the papers, and the threat model, of made-up results.

use attacks::evasion::adversarial_training;
use attacks::membership;

use super::*;

/// Hardened networks as a quick run's records are, encrypted: robust accuracy before and
/// after, and how many times the bytes and the time an inference takes.
fn hardened(robust: [usize; 2], times: [f64; 2]) -> Vec<Record> {
    let share = |right: usize| right as f64 / 200.0;
    let of_target = |target: String| {
        let of = |metric: &str, ordinary: f64| {
            let mut record = record("adversarial-training", &target, json!({"eps": 0.1}), metric);
            record.baseline = [("ordinary".to_owned(), ordinary)].into();
            record
        };
        let accuracy = valued(of("accuracy", share(196)), 190);
        let mut after = valued(of("robust_accuracy", share(robust[0])), robust[1]);
        let better = after.ci95.unwrap()[0] > share(robust[0]);
        after.verdict = better.then_some(Verdict::Success);
        let mut all = vec![accuracy, after];
        let costs = ["bytes_per_query", "evaluator_ms_per_query"];
        for (metric, times) in costs.iter().zip(times) {
            let mut cost = of(metric, 100.0);
            cost.value = Some(100.0 * times);
            all.push(cost);
        }
        all
    };
    let targets = adversarial_training::encrypted_targets(Scale::Quick);
    targets.into_iter().flat_map(of_target).collect()
}

/// LiRA's AUCs and accuracies without countermeasures and with them, on all encrypted
/// networks of a quick run.
fn defended(aucs: [usize; 2], accuracies: [usize; 2]) -> Vec<Record> {
    let targets = membership::countermeasures::encrypted_targets(Scale::Quick);
    let mut all = Vec::new();
    for dataset in ["mnist", "fashion-mnist"] {
        for (at, target) in targets.iter().enumerate() {
            let with = usize::from(at > 0);
            let figures = [
                ("lira_auc", aucs[with]),
                ("test_accuracy", accuracies[with]),
            ];
            for (metric, right) in figures {
                let params = json!({"defence": at, "lira_shadows": 8});
                let of = record("membership-countermeasures", target, params, metric);
                let dataset = dataset.to_owned();
                all.push(valued(Record { dataset, ..of }, right));
            }
        }
    }
    all
}

const INFEASIBLE: &str = "Countermeasures are infeasible";

fn infeasible(parts: &[&[Record]]) -> Claim {
    let found = Found {
        records: parts.concat(),
        ..Found::default()
    };
    claim(&found, INFEASIBLE)
}

#[test]
fn countermeasures_are_feasible_where_they_help_and_cost_an_inference_nothing() {
    let refuted = infeasible(&[&hardened([20, 150], [1.0, 1.2])]);
    assert_eq!(refuted.standing, Standing::Fails);
    for said in [
        "1.000 times the bytes",
        "rises on 2 of 2",
        "before and 0.950",
        "of quick runs",
        "Missing: membership-countermeasures on weight decay 10 square, encrypted (mnist)",
    ] {
        let because = &refuted.because;
        assert!(because.contains(said), "{said}: {because}");
    }
    let nothing = defended([120, 118], [180, 180]);
    let of = |robust, times| infeasible(&[&hardened(robust, times), &nothing]).standing;
    // Of no use, but cheap; and dear beyond what is said to forbid.
    assert_eq!(of([150, 150], [1.0, 1.2]), Standing::Partly);
    assert_eq!(of([20, 150], [12.0, 1.0]), Standing::Holds);
    // In between, bytes do not decide, and a time never does.
    assert_eq!(of([20, 150], [1.5, 1.0]), Standing::Undecided);
    assert_eq!(of([20, 150], [1.0, 2.5]), Standing::Fails);
    assert_eq!(of([20, 150], [1.0, 12.0]), Standing::Undecided);
    assert_eq!(of([150, 150], [1.0, 12.0]), Standing::Partly);
    // One that costs too much accuracy is of no use.
    let mut costly = hardened([20, 150], [1.0, 1.0]);
    for record in costly.iter_mut().filter(|r| r.metric == "accuracy") {
        record.value = Some(0.8);
    }
    let costly = infeasible(&[&costly, &nothing]);
    assert_eq!(costly.standing, Standing::Partly);
    assert!(
        costly.because.contains("on 0 of them"),
        "{}",
        costly.because
    );
    // Nothing holds while records are missing.
    let dear = hardened([20, 150], [12.0, 1.0]);
    assert_eq!(infeasible(&[&dear]).standing, Standing::Undecided);
    assert_eq!(infeasible(&[&nothing]).standing, Standing::Undecided);
    assert_eq!(infeasible(&[]).standing, Standing::Open);
}

#[test]
fn countermeasures_against_membership_are_compared_like_with_like() {
    let useless = hardened([150, 150], [1.0, 1.2]);
    let of = |private: &[Record]| infeasible(&[&useless, private]);
    // It helps, and of bytes there is no record.
    let private = defended([190, 110], [180, 178]);
    let helps = of(&private);
    assert_eq!(helps.standing, Standing::Undecided);
    assert!(
        helps
            .because
            .contains("falls on 6 of 6 encrypted networks, on 6 of them")
    );
    // At the cost of accuracy it is of no use.
    let costly = of(&defended([190, 110], [180, 120]));
    assert_eq!(costly.standing, Standing::Partly);
    assert!(costly.because.contains("on 0 of them"));
    // Another seed, or as many shadow models as it was not, is not compared.
    for other in [0, 1] {
        let mut odd = private.clone();
        for record in odd
            .iter_mut()
            .filter(|r| r.target.starts_with("undefended"))
        {
            match other {
                0 => record.seed += 1,
                _ => drop(record.params.insert("lira_shadows".into(), 16.into())),
            }
        }
        let odd = of(&odd);
        assert_eq!(odd.standing, Standing::Undecided);
        assert!(odd.because.contains("falls on 0 of 6"), "{}", odd.because);
        assert!(odd.because.contains("Missing"), "{}", odd.because);
    }
    // Where LiRA's AUC is missing on one side, the threshold's is compared on both.
    let mut mixed: Vec<Record> = private
        .iter()
        .filter(|r| r.metric != "lira_auc" || !r.target.starts_with("undefended"))
        .cloned()
        .collect();
    for record in private.iter().filter(|r| r.metric == "lira_auc") {
        let metric = "auc".to_owned();
        mixed.push(valued(
            Record {
                metric,
                ..record.clone()
            },
            190,
        ));
    }
    let mixed = of(&mixed);
    assert!(
        mixed.because.contains("falls on 0 of 6"),
        "{}",
        mixed.because
    );
    assert!(!mixed.because.contains("Missing"), "{}", mixed.because);
}

/// The records of a step whose attack succeeds.
fn of_step(
    attack: &str,
    target: &str,
    params: serde_json::Value,
    metrics: &[(&str, usize)],
) -> Vec<Record> {
    let each = metrics.iter().map(|&(metric, right)| {
        let mut record = valued(record(attack, target, params.clone(), metric), right);
        record.verdict = Some(Verdict::Success);
        record
    });
    each.collect()
}

#[test]
fn what_is_beyond_the_papers_has_its_tables() {
    let mut found = found();
    assert!(beyond::overviews(&found).is_empty());
    found.records.extend(hardened([20, 150], [1.0, 1.0]));
    found.records.extend(defended([190, 110], [180, 160]));
    let metrics = [("robust_accuracy", 7), ("label_flips", 1)];
    let autoattack = |target| of_step("autoattack", target, json!({"eps": 0.1}), &metrics);
    found.records.extend(autoattack("mnist-mlp64"));
    let exact = json!({"radius": 30.0, "decimals": null});
    let agreement = [("agreement", 199)];
    let exact = of_step(
        "extraction-exact",
        "mnist-mlp64, encrypted",
        exact,
        &agreement,
    );
    found.records.extend(exact);
    let set = json!({"rule": HOSTILE});
    let recovery = of_step(
        "key-recovery",
        "N4096_DEPTH3",
        set,
        &[("keys recovered", 200)],
    );
    found.records.extend(recovery);
    let clear = |target, metrics: &[(&str, usize)]| {
        of_step("learned-activations", target, json!({"eps": 0.05}), metrics)
    };
    let cubic = [("accuracy", 181), ("gain_of_pgd", 13)];
    found.records.extend(clear("learned degree 3", &cubic));
    found.records.extend(clear(
        "learned degree 3, encrypted",
        &[("deployed", 200), ("label_flips", 3)],
    ));
    let mut diverged = clear("learned degree 5", &[("diverged_in_epoch", 200)]);
    diverged[0].reason = Some("training diverged: the loss was NaN".into());
    found.records.extend(diverged);
    found.records.extend(clear("relu", &[("accuracy", 182)]));
    let mut refused = clear("relu, encrypted", &[("deployed", 0)]);
    refused[0].reason = Some(format!("layer 1 is a ReLU {HOSTILE}"));
    found.records.extend(refused);

    found
        .records
        .extend(clear("relu, other seed 1", &[("gain_of_pgd", 2)]));

    let noise = json!({"eps": 0.1, "noise": "1 times the margin"});
    let metrics = [("accuracy_by_means", 33), ("gain_of_means", 21)];
    let mut flooded = of_step("eot-square", "mnist-cryptonets", noise, &metrics);
    flooded[1].verdict = None;
    found.records.extend(flooded);

    let overviews = beyond::overviews(&found);
    let titles: Vec<&str> = overviews.iter().map(|overview| overview.title).collect();
    assert_eq!(titles.len(), 7, "{titles:?}");
    let activations = overviews.iter().find(|o| o.title == "Activations").unwrap();
    let [cubic, quintic, relu, _] = &activations.rows[..] else {
        panic!("{:?}", activations.rows);
    };
    assert!(
        cubic[1].starts_with("0.905") && cubic[11].starts_with("0.015"),
        "{cubic:?}"
    );
    assert!(
        quintic[1].contains("the loss was NaN") && quintic[11] == "-",
        "{quintic:?}"
    );
    assert!(
        relu[11].starts_with("layer 1 is a ReLU") && relu[12] == "-",
        "{relu:?}"
    );
    // By 0.065 (0.038 to 0.108), where another seed changes 0.01.
    let more = "PGD, more with learned degree 3 (mnist); a ReLU surrogate, no difference";
    assert!(activations.says.contains(more), "{}", activations.says);
    let mut other = found.records.clone();
    let seeds = other.iter_mut().filter(|r| r.target.starts_with("relu, o"));
    seeds.for_each(|record| record.value = Some(-0.07));
    let other = beyond::overviews(&Found {
        records: other,
        ..Found::default()
    });
    let said = &other
        .iter()
        .find(|o| o.title == "Activations")
        .unwrap()
        .says;
    assert!(said.contains("PGD, no difference"), "{said}");
    let flooded = overviews
        .iter()
        .find(|o| o.title.starts_with("Expectation"));
    let said = &flooded.unwrap().says;
    for part in [
        "In 1 rows of eot-square",
        "in 1, and fewer in 0",
        "means in 1.",
    ] {
        assert!(said.contains(part), "{said}");
    }
    for overview in &overviews {
        for row in &overview.rows {
            assert_eq!(row.len(), overview.columns.len(), "{}", overview.title);
        }
    }
    let (page, text) = (page(&found), markdown(&found));
    for figure in [
        "0.035",
        "0.900",
        "old or wrong",
        "radius 30",
        "0.750",
        "0.165",
        "PGD, more with",
    ] {
        assert!(page.contains(figure), "{figure} is not on the page");
        assert!(text.contains(figure), "{figure} is not in the text");
    }
    assert!(!page.contains("<script") && !text.contains("<script"));
    // The threat model counts outcomes, and takes costs from records.
    let threats = threats::table(&found);
    let row = |who: &str| {
        let mut rows = threats.rows.iter();
        rows.find(|row| row[0].starts_with(who)).unwrap().join(" ")
    };
    assert!(row("man in the middle").contains("of 3 figures 3 succeed, 0 fail"));
    assert!(row("man in the middle").contains("from 0.980 to 0.950"));
    assert!(
        row("whoever gets published")
            .contains("not measured; under old or wrong rules, of 1 figures 1 succeed")
    );
    assert!(row("evaluator that forges").contains("not measured"));
    let privacy = row("user of the service, about");
    assert!(privacy.contains("from 0.900 to 0.800"), "{privacy}");
    assert!(privacy.contains("mnist)"), "{privacy}");
    // A quick run's records of a target give way to a full one's, and those of others stay.
    let mut full = autoattack("mnist-mlp64");
    full.iter_mut().for_each(|r| r.scale = Scale::Full);
    full[0].value = Some(0.5);
    found.records.extend(full);
    found.records.extend(autoattack("mnist-cryptonets"));
    let overviews = beyond::overviews(&found);
    let rows = &overviews
        .iter()
        .find(|o| o.title == "AutoAttack")
        .unwrap()
        .rows;
    assert_eq!(rows.len(), 2);
    assert!(rows[0][5].starts_with("0.500"), "{rows:?}");
    assert!(rows[1][5].starts_with("0.035"), "{rows:?}");
}
