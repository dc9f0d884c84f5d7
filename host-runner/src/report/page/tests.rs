//! The page of made-up results.

use attacks::paper::FIGURES;
use attacks::stats::wilson;
use serde_json::json;

use super::claims::Standing;
use super::*;

mod further;

/// A name that would do harm if it were not escaped.
const HOSTILE: &str = "<script>alert(1)</script>\" onload=\"x";

fn record(attack: &str, target: &str, params: serde_json::Value, metric: &str) -> Record {
    let line = json!({
        "attack": attack, "commit": "0123abcd", "target": target, "dataset": "mnist",
        "metric": metric, "value": null, "ci95": null, "baseline": {HOSTILE: 0.1},
        "paper": null, "queries": 600, "seed": 1, "params": params, "verdict": null,
        "seconds": 1.5, "scale": "quick", "parts": 1,
    });
    serde_json::from_value(line).unwrap()
}

/// With a share of 200 and its interval.
fn valued(mut record: Record, right: usize) -> Record {
    let share = wilson(right, 200);
    record.value = Some(share.value);
    record.ci95 = Some(share.ci95);
    record
}

/// Results as commands would leave them.
fn found() -> Found {
    let epochs = [166, 167, 168, 169, 170].map(|right| {
        json!({
            "evaluator": {"secs": 3, "nanos": 0}, "client": {"secs": 0, "nanos": 500_000_000},
            "right": right, "flips": 0,
        })
    });
    let mut records = Vec::new();
    for (target, right) in [
        ("mnist-cryptonets", 20),
        ("mnist-cryptonets, encrypted", 30),
    ] {
        for eps in [0.1, 0.3] {
            let params = json!({"eps": eps, "samples": 200});
            records.push(valued(record("fgsm", target, params, "accuracy"), right));
        }
    }
    for target in ["overfitted square", "overfitted square, encrypted"] {
        let params = json!({"mode": "online"});
        let mut auc = valued(record("membership-lira", target, params, "auc"), 160);
        auc.verdict = Some(Verdict::Success);
        records.push(auc);
    }
    let mut refused = record("pgd", HOSTILE, json!({"note": HOSTILE}), "applicability");
    refused.verdict = Some(Verdict::NotApplicable);
    refused.reason = Some(HOSTILE.into());
    records.push(refused);
    Found {
        records,
        pictures: vec![
            (
                HOSTILE.into(),
                Picture::Images {
                    width: 2,
                    columns: vec![HOSTILE.into()],
                    images: vec![vec![0.5; 4]],
                },
            ),
            (
                "membership-lira-x".into(),
                Picture::Curves {
                    x: HOSTILE.into(),
                    y: "y".into(),
                    logarithmic: true,
                    curves: vec![(HOSTILE.into(), vec![(0.01, 0.1), (1.0, 1.0)])],
                },
            ),
        ],
        runs: vec![
            serde_json::from_value(json!({
                "device": HOSTILE, "model": "mnist-fcnn", "packing": "latency",
                "images": [{"seconds": 0.5}, {"seconds": 0.7, "refused": "x"}],
                "accuracy": 1.0, "plain_accuracy": 1.0, "label_flips": 0,
                "evaluator": {"stages": [
                    {"name": "layer 0: 784-1024", "seconds": 0.25},
                    {"name": "square 1", "seconds": 0.125},
                    {"name": "layer 2: 1024-64", "seconds": 0.0625},
                ]},
            }))
            .unwrap(),
        ],
        trainings: vec![
            serde_json::from_value(json!({
                "mode": "refresh", "test_rows": 230, "encryption": {"secs": 2, "nanos": 0},
                "epochs": epochs,
            }))
            .unwrap(),
        ],
        benches: vec![
            serde_json::from_value(json!({
                "device": "inproc",
                "results": [{"op": "rotate", "n": 4096, "limbs": 4, "median_us": 517.2, "instructions": null}],
            }))
            .unwrap(),
        ],
        timing: [(false, "pass"), (true, "leak"), (false, "inconclusive")]
            .map(|(control, verdict)| {
                serde_json::from_value(json!({
                    "experiment": "host", "operation": HOSTILE, "target": HOSTILE,
                    "statistic": "rtlf", "value": 2.5, "threshold": 4.0, "samples": 10000,
                    "control": control, "verdict": verdict,
                    "details": {HOSTILE: HOSTILE, "ci95": [0.1, 0.2], "planned_samples": 20000},
                }))
                .unwrap()
            })
            .into(),
    }
}

/// Values of an attribute wherever it stands in a tag.
fn attribute<'p>(page: &'p str, name: &str) -> Vec<&'p str> {
    let sought = format!(" {name}=\"");
    let parts = page.split(&sought).skip(1);
    parts.map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn every_figure_of_the_papers_is_there_with_ours() {
    let found = found();
    let page = page(&found);
    for figure in FIGURES {
        assert!(page.contains(figure.row), "{figure:?}");
        assert!(page.contains(&number(figure.value)), "{figure:?}");
        assert!(TABLES.contains(&figure.table), "{figure:?}");
    }
    for attack in attacks::ATTACKS {
        assert!(page.contains(attack.name()), "{}", attack.name());
    }
    let cell = |table, row: &str, column: &str| {
        let all = cells::cells(&found, table);
        let cell = all
            .into_iter()
            .find(|c| c.figure.row == row && c.figure.column == column);
        cell.unwrap()
    };
    let fgsm = cell(paper::SHIN_4, "mnist", "FGSM");
    assert_eq!(fgsm.encrypted.as_ref().unwrap().value, 0.15);
    assert_eq!(fgsm.clear.as_ref().unwrap().value, 0.1);
    assert!(fgsm.encrypted.unwrap().ci95.is_some());
    assert!(cell(paper::SHIN_4, "mnist", "BIM").ours().is_none());
    let layer = cell(paper::CHEN_2, "FC2 (1024,64)", "s");
    assert_eq!(layer.ours().unwrap().value, 0.0625);
    let time = cell(paper::CHEN_1, "EncFCNN", "s per image");
    assert!((time.ours().unwrap().value - 0.6).abs() < 1e-12);
    let of_training = |column| {
        let cell = cell(paper::CHEN_LOGISTIC, "training on encrypted data", column);
        cell.encrypted.unwrap().value
    };
    assert_eq!(of_training("five epochs, s"), 17.5);
    assert_eq!(of_training("encryption, s, at least"), 2.0);
    assert_eq!(of_training("accuracy"), 170.0 / 230.0);
    for text in ["0123abcd", "0.062", "517.2", "not measured", "AUC of LiRA"] {
        assert!(page.contains(text), "{text}");
    }
    // What is measured is counted, and no more.
    let all = TABLES.iter().flat_map(|&table| cells::cells(&found, table));
    let filled = all.filter(|cell| cell.ours().is_some()).count();
    assert!(page.contains(&format!("<dd>{filled} of {}</dd>", FIGURES.len())));
}

#[test]
fn the_tables_are_there_as_text() {
    let text = markdown(&found());
    for part in [
        "records of a quick run",
        "commit 0123abcd",
        "| mnist | FGSM |",
        "0.150 (0.107 to 0.206)",
        "Not measured.",
        "**holds**: Encryption does not",
        "## Operations on a host, fixed against random",
        ", control | ",
        "| caught |",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let hostile = text.contains("<script") || text.contains("|alert");
    assert!(!hostile, "{text}");
    // Every line of a table has as many cells as its heading.
    let bars = |line: &str| line.replace("\\|", "").matches('|').count();
    let mut heading = None;
    let mut lines = 0;
    for line in text.lines() {
        if !line.starts_with('|') {
            heading = None;
            continue;
        }
        assert_eq!(bars(line), *heading.get_or_insert(bars(line)), "{line}");
        lines += 1;
    }
    assert!(lines > 20);
    assert!(text.contains("## Threat model"));
}

#[test]
fn values_are_escaped_and_nothing_is_asked_for_elsewhere() {
    let page = page(&found());
    assert!(!page.contains("<script") && !page.contains("onload=\""));
    assert!(page.contains("&lt;script&gt;"));
    for address in attribute(&page, "src") {
        assert!(address.starts_with("data:image/png;base64,"), "{address}");
    }
    let links = attribute(&page, "href");
    assert!(!links.is_empty());
    for link in links {
        let name = link.strip_prefix('#').expect(link);
        assert!(
            page.contains(&format!("id=\"{name}\"")),
            "{link} leads nowhere"
        );
    }
    for elsewhere in [
        "http:", "https:", "url(", "@import", "<link", "<iframe", "srcset",
    ] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    assert!(page.contains("default-src 'none'"));
}

/// What became of the claim that begins so.
fn claim(found: &Found, says: &str) -> Claim {
    let all = claims::all(found);
    all.iter().for_each(is_of_sentences);
    let claim = all.into_iter().find(|claim| claim.says.starts_with(says));
    claim.unwrap()
}

/// Each begins with a capital letter, and the page sets the last full stop.
fn is_of_sentences(claim: &Claim) {
    let because = &claim.because;
    for sentence in because.split(". ") {
        let first = sentence.chars().next();
        assert!(first.is_some_and(char::is_uppercase), "{because}");
    }
    assert!(!because.ends_with('.'), "{because}");
}

fn standing(found: &Found, says: &str) -> Standing {
    claim(found, says).standing
}

#[test]
fn claims_about_membership_follow_the_records() {
    let mut found = found();
    let (membership, resisted) = (
        "Encryption does not drastically",
        "Membership inference is resisted",
    );
    let said = claim(&found, membership);
    assert_eq!(said.standing, Standing::Holds);
    assert!(said.because.contains("one target") && said.because.contains("seed 1 on mnist"));
    assert_eq!(standing(&found, resisted), Standing::Fails);
    assert!(!claim(&found, resisted).because.contains("well-fitted"));
    let mut encrypted = |value, ci95, verdict| {
        for record in &mut found.records {
            if record.target == "overfitted square, encrypted" {
                record.value = Some(value);
                record.ci95 = Some(ci95);
                record.verdict = Some(verdict);
            }
        }
        (standing(&found, membership), standing(&found, resisted))
    };
    let inconclusive = encrypted(0.7, [0.4, 0.9], Verdict::Inconclusive);
    assert_eq!(inconclusive, (Standing::Undecided, Standing::Undecided));
    let failed = encrypted(0.5, [0.45, 0.55], Verdict::Failure);
    assert_eq!(failed, (Standing::Fails, Standing::Holds));
    let open = claims::all(&Found::default());
    open.iter().for_each(is_of_sentences);
    assert!(open.iter().all(|claim| claim.standing == Standing::Open));
}

#[test]
fn extraction_is_undecided_where_intervals_overlap() {
    let says = "Extraction succeeds somewhat less";
    let of = |relu, square| {
        let params = || json!({"queries": "natural", "budget": 1000});
        let agreement = |target, right| {
            valued(
                record("extraction-labels", target, params(), "agreement"),
                right,
            )
        };
        let records = vec![
            agreement("mnist-mlp64-relu", relu),
            agreement("mnist-mlp64, encrypted", square),
        ];
        let found = Found {
            records,
            ..Found::default()
        };
        standing(&found, says)
    };
    assert_eq!(of(180, 176), Standing::Undecided);
    assert_eq!(of(180, 120), Standing::Holds);
    assert_eq!(of(120, 180), Standing::Fails);
}

#[test]
fn the_game_is_decided_when_every_target_was_played_on() {
    let says = "No attacker tells";
    let advantage = |attack, target: &str, verdict| {
        let game = record(
            attack,
            target,
            json!({"pair": "two classes"}),
            "advantage: x",
        );
        let mut game = valued(game, 4);
        game.verdict = Some(verdict);
        game
    };
    let mut found = Found::default();
    for (network, weights) in crate::attacked::deployments(Scale::Quick) {
        for attack in ["game-ciphertexts", "game-timing"] {
            assert_ne!(standing(&found, says), Standing::Holds);
            let target = crate::attacked::name(network, weights);
            found
                .records
                .push(advantage(attack, &target, Verdict::Failure));
        }
    }
    assert_eq!(standing(&found, says), Standing::Holds);
    let last = found.records.pop().unwrap();
    let missing = format!("game-timing on {}", last.target);
    assert_eq!(standing(&found, says), Standing::Undecided);
    assert!(claim(&found, says).because.contains(&missing));
    let mut of = |verdict| {
        found
            .records
            .push(advantage("game-timing", &last.target, verdict));
        let standing = standing(&found, says);
        found.records.pop();
        standing
    };
    assert_eq!(of(Verdict::Inconclusive), Standing::Undecided);
    assert_eq!(of(Verdict::Success), Standing::Fails);
}

#[test]
fn times_and_labels_are_decided_by_both_networks() {
    let (time, accuracy) = ("The time is still manageable", "Encrypted evaluation keeps");
    let mut found = found();
    // One network of the two, with two samples.
    assert_eq!(standing(&found, time), Standing::Undecided);
    assert_eq!(standing(&found, accuracy), Standing::Undecided);
    assert!(claim(&found, time).because.contains("Checked is"));
    let run = found.runs[0].clone();
    let images = vec![run.images[0].clone(); 1000];
    found.runs = ["mnist-fcnn", "mnist-cnn"]
        .map(|model| InferFile {
            model: model.into(),
            images: images.clone(),
            ..run.clone()
        })
        .to_vec();
    assert_eq!(standing(&found, time), Standing::Holds);
    assert_eq!(standing(&found, accuracy), Standing::Holds);
    found.runs[1].label_flips = 100;
    assert_eq!(standing(&found, accuracy), Standing::Fails);
    for image in &mut found.runs[1].images {
        image.seconds = Some(200.0);
    }
    assert_eq!(standing(&found, time), Standing::Partly);
}

#[test]
fn evasion_is_decided_by_all_six_attacks() {
    let mut found = found();
    let says = "Adversarial examples";
    assert_eq!(standing(&found, says), Standing::Undecided);
    found.records.clear();
    for network in ["mnist-cryptonets", "fashion-cryptonets"] {
        for attack in ["fgsm", "bim", "cw-l2"] {
            let params = json!({"eps": 0.3, "samples": 200});
            let mut of = valued(record(attack, network, params, "accuracy"), 20);
            of.dataset = if network.starts_with("fashion") {
                "fashion-mnist".into()
            } else {
                "mnist".into()
            };
            found.records.push(of);
        }
    }
    assert_eq!(standing(&found, says), Standing::Holds);
    let last = found.records.pop().unwrap();
    found.records.push(valued(last, 100));
    assert_eq!(standing(&found, says), Standing::Partly);
}

#[test]
fn leakage_stands_with_its_controls() {
    let page = page(&found());
    let section = page.split("id=\"leakage\"").nth(1).unwrap();
    let section = section.split("</section>").next().unwrap();
    for said in [
        "Every control was caught, and nothing else leaks.",
        "1 are inconclusive",
        "caught",
        "inconclusive: too few samples",
        &format!("planned samples {}", number(20_000.0)),
        "ci95 0.100 to 0.200",
    ] {
        assert!(section.contains(said), "{said} is not in {section}");
    }
    // A control that was not caught, and an operation that leaks.
    let mut other = found();
    other.timing[1].verdict = attacks::leakage::Verdict::Pass;
    other.timing[2].verdict = attacks::leakage::Verdict::Leak;
    let page = super::page(&other);
    assert!(page.contains("2 of 3 lines are not as they should be"));
    assert!(page.contains("NOT CAUGHT"));
    other.timing.clear();
    assert!(!super::page(&other).contains("id=\"leakage\""));
}

#[test]
fn a_directory_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let records: Vec<String> = found().records.iter().map(|r| r.line().unwrap()).collect();
    // A step that was computed again, and a line that was cut short.
    let again = records[0].replace("\"value\":0.1,", "\"value\":0.2,");
    let text = format!("{}\n{again}\n{{\"attack\":", records.join("\n"));
    fs::write(path("records.jsonl"), text).unwrap();
    fs::write(path("other.json"), "{\"x\": 1}").unwrap();
    let run = json!({
        "device": "inproc", "model": "mnist-cnn", "packing": "batch", "images": [],
        "accuracy": 0.0, "plain_accuracy": 0.0, "label_flips": 0, "evaluator": {"stages": []},
    });
    fs::write(path("run.json"), run.to_string()).unwrap();
    timing::results::keep(directory.path(), &found().timing).unwrap();
    let read = read(directory.path()).unwrap();
    assert_eq!(read.timing, found().timing);
    assert_eq!(read.records.len(), records.len());
    let value = |r: &&Record| r.line().unwrap() == again;
    assert_eq!(read.records.iter().filter(value).count(), 1);
    assert_eq!((read.runs.len(), read.benches.len()), (1, 0));
    fs::write(path("records.jsonl"), "nonsense\n").unwrap();
    assert!(matches!(
        super::read(directory.path()),
        Err(ResultsError::Line { .. })
    ));
}

/// Shows a page in Chromium: its elements as they were read, and how often it asked for
/// something. What the browser asks for by itself has no origin.
fn browse(page: &str) -> (String, usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("report.html"), page).unwrap();
    let shown = std::process::Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
        .args(["--no-first-run", "--disable-background-networking"])
        .arg(format!("--user-data-dir={}", path("profile").display()))
        .arg(format!("--log-net-log={}", path("net.json").display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", path("report.html").display()))
        .output()
        .expect("the long form needs chromium: apt-get install chromium");
    let log = fs::read_to_string(path("net.json")).unwrap();
    let asked = log.split("\"initiator\":\"").skip(1);
    let asked = asked.filter(|rest| !rest.starts_with("not an origin"));
    (String::from_utf8(shown.stdout).unwrap(), asked.count())
}

/// In the long form alone, as Chromium is large.
#[test]
fn a_browser_shows_the_page_and_asks_for_nothing() {
    if std::env::var_os("HE_EDGE_LONG").is_none() {
        return;
    }
    let (_, asked) = browse("<img src=\"http://127.0.0.1:9/x.png\">");
    assert!(asked > 0, "a request would not be seen");
    let page = page(&found());
    let (shown, asked) = browse(&page);
    assert_eq!(asked, 0);
    for text in [
        "Which claims hold",
        "0123abcd",
        "&lt;script&gt;alert(1)",
        "</html>",
    ] {
        assert!(shown.contains(text), "{text}");
    }
    let figures = |page: &str| page.matches("<figure>").count();
    assert_eq!(figures(&shown), figures(&page));
}
