//! Runs mutants that cargo-mutants lists without compiling each of them: all are in one
//! build, behind switches, and of a crate's tests those run that reach a mutant, from the
//! fastest on, until one fails. What cannot be switched is compiled by itself.
//!
//!     he-edge-mutation LIST WORK PACKAGE FEATURES [TARGETS]
//!
//! LIST is what `cargo mutants --list --json` wrote, WORK a directory, empty or of an
//! earlier run, which is continued if it was of the same sources. Outcomes are appended to
//! `WORK/outcomes`.

mod mutants;
mod switched;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mutants::Mutant;
use serde_json::Value;
use switched::Switched;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Beyond ten times what a test takes, and this, it does not end.
const GRACE: Duration = Duration::from_secs(20);
/// Address space of a test, in KiB: a mutant may ask for all there is.
const MEMORY: &str = "ulimit -v 6000000; exec \"$@\"";

/// A copy of the sources with its build.
#[derive(Clone)]
struct Tree {
    root: PathBuf,
    target: PathBuf,
    wrapper: Option<PathBuf>,
    package: String,
    features: String,
    /// Which tests, as `cargo test` takes it.
    targets: Vec<String>,
}

/// One test of one executable.
struct Test {
    executable: PathBuf,
    name: String,
    took: Duration,
    reaches: BTreeSet<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Noticed,
    TimedOut,
    Survived,
    /// The mutant, by itself, does not compile.
    Uncompiled,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Noticed => "noticed",
            Self::TimedOut => "timeout",
            Self::Survived => "survived",
            Self::Uncompiled => "uncompiled",
        }
    }
}

/// What git tracks, as paths that end in zeros.
fn tracked() -> Result<String> {
    let listed = Command::new("git").args(["ls-files", "-z"]).output()?;
    match listed.status.success() {
        true => Ok(String::from_utf8(listed.stdout)?),
        false => Err(String::from_utf8_lossy(&listed.stderr).into()),
    }
}

/// What outcomes are compared with, and do not depend on.
const SURVIVORS: &str = "tests/mutation/survivors.txt";

/// Takes away what an earlier run left, if any file was another, or what was asked for: its
/// outcomes are of sources that are no more.
fn renew(work: &Path, asked: &[String]) -> Result<()> {
    let mut hasher = DefaultHasher::new();
    asked.hash(&mut hasher);
    for path in tracked()?.split_terminator('\0') {
        if path != SURVIVORS {
            (path, fs::read(path)?).hash(&mut hasher);
        }
    }
    let (digest, sources) = (hasher.finish().to_string(), work.join("sources"));
    if fs::read_to_string(&sources).ok().as_ref() == Some(&digest) {
        return Ok(());
    }
    // The trees too: a test that is no longer tracked would be built still.
    for tree in ["plain", "switched"].map(|name| work.join(name)) {
        if tree.exists() {
            fs::remove_dir_all(tree)?;
        }
    }
    let outcomes = work.join("outcomes");
    if outcomes.exists() {
        eprintln!("{} is of other sources: begun anew", outcomes.display());
        fs::remove_file(outcomes)?;
    }
    fs::write(sources, digest)?;
    Ok(())
}

impl Tree {
    /// Copies what git tracks.
    fn fill(&self) -> Result<()> {
        for path in tracked()?.split_terminator('\0') {
            let to = self.root.join(path);
            fs::create_dir_all(to.parent().ok_or("a file has a directory")?)?;
            let new = fs::read(path)?;
            // Equal files keep their time.
            if fs::read(&to).ok().as_ref() != Some(&new) {
                fs::write(&to, new)?;
            }
        }
        Ok(())
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(&self.root)
            .args([
                command,
                "--profile",
                "mutants",
                "--message-format=json",
                "--package",
            ])
            .arg(&self.package)
            .args(["--features", &self.features])
            .env("CARGO_TARGET_DIR", &self.target)
            .env_remove("CARGO_INCREMENTAL")
            .stderr(Stdio::null());
        if let Some(wrapper) = &self.wrapper {
            cargo.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
        }
        cargo
    }

    /// What cargo says, as JSON, and whether it succeeded.
    fn say(cargo: &mut Command) -> Result<(Vec<Value>, bool)> {
        let output = cargo.output()?;
        let lines = String::from_utf8(output.stdout)?;
        let values = lines
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        Ok((values, output.status.success()))
    }

    fn check(&self) -> Result<(Vec<Value>, bool)> {
        Self::say(self.cargo("check").arg("--lib"))
    }

    /// The executables of the tests, or nothing where they do not compile.
    fn build(&self, targets: &[String]) -> Result<(Vec<Value>, Option<Vec<PathBuf>>)> {
        let (said, success) = Self::say(self.cargo("test").arg("--no-run").args(targets))?;
        let executables = said
            .iter()
            .filter(|value| value["profile"]["test"] == true)
            .filter_map(|value| value["executable"].as_str().map(PathBuf::from))
            .collect();
        Ok((said, success.then_some(executables)))
    }

    fn tests(&self, executables: &[PathBuf]) -> Result<Vec<Test>> {
        let mut tests = Vec::new();
        for executable in executables {
            let listed = Command::new(executable)
                .args(["--list", "--format", "terse"])
                .output()?;
            for line in String::from_utf8(listed.stdout)?.lines() {
                if let Some(name) = line.strip_suffix(": test") {
                    tests.push(Test {
                        executable: executable.clone(),
                        name: name.into(),
                        took: Duration::ZERO,
                        reaches: BTreeSet::new(),
                    });
                }
            }
        }
        Ok(tests)
    }

    /// Whether the test passes; nothing where it did not end in time.
    fn run(
        &self,
        test: &Test,
        variable: Option<(&str, &str)>,
        limit: Duration,
    ) -> Result<Option<bool>> {
        let mut command = Command::new("bash");
        command
            .current_dir(self.root.join(&self.package))
            .args(["-c", MEMORY, "bash"])
            .arg(&test.executable)
            .args(["--exact", &test.name, "--test-threads", "1"])
            // Whether it fails is all that counts, and a failure of a mutant is not kept.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((name, value)) = variable {
            command.env(name, value);
        }
        let mut child = command.spawn()?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status.success()));
            }
            if begun.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The sources with switches, less what does not compile with one.
fn switched_tree(
    work: &Path,
    plain: &Tree,
    mutants: &[Mutant],
) -> Result<(Tree, Vec<PathBuf>, BTreeSet<usize>)> {
    let wrapper = work.join("rustc");
    fs::write(&wrapper, "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec \"$@\"\n")?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    }
    let tree = Tree {
        root: work.join("switched"),
        wrapper: Some(wrapper),
        ..plain.clone()
    };
    tree.fill()?;
    let lib = tree.root.join(&tree.package).join("src/lib.rs");
    let text = fs::read_to_string(&lib)?;
    fs::write(
        &lib,
        format!(
            "#![feature(core_intrinsics, const_eval_select)]\n#![allow(warnings)]\n{text}{}",
            switched::MODULE
        ),
    )?;

    let mut without = BTreeSet::new();
    loop {
        let mut files = BTreeMap::<String, Switched>::new();
        for (path, ids) in mutants::by_file(mutants) {
            let source = fs::read_to_string(plain.root.join(path))?;
            let wanted: Vec<_> = ids
                .iter()
                .filter(|id| !without.contains(*id))
                .map(|&id| (id, &mutants[id]))
                .collect();
            let (file, placed) = switched::switch(&source, &wanted)?;
            without.extend(
                wanted
                    .iter()
                    .map(|(id, _)| *id)
                    .filter(|id| !placed.contains(id)),
            );
            let to = tree.root.join(path);
            if fs::read_to_string(&to)? != file.text {
                fs::write(to, &file.text)?;
            }
            files.insert(path.to_owned(), file);
        }
        let (mut said, checked) = tree.check()?;
        if checked {
            let (all, built) = tree.build(&tree.targets)?;
            if let Some(executables) = built {
                return Ok((tree, executables, without));
            }
            said = all;
        }
        let before = without.len();
        let mut unknown = Vec::new();
        for value in &said {
            let message = &value["message"];
            if value["reason"] != "compiler-message" || message["level"] != "error" {
                continue;
            }
            let mut spans: Vec<_> = message["spans"].as_array().cloned().unwrap_or_default();
            spans.sort_by_key(|span| span["is_primary"] != true);
            let blamed = spans.iter().find_map(|span| {
                let file = files.get(span["file_name"].as_str()?)?;
                let place = |name: &str| span[name].as_u64().map(|at| at as usize);
                let blamed = file.blamed(&(place("byte_start")?..place("byte_end")?));
                (!blamed.is_empty()).then_some(blamed)
            });
            match blamed {
                Some(ids) => without.extend(ids),
                None => unknown.push(message["rendered"].to_string()),
            }
        }
        eprintln!("{} without a switch", without.len());
        if without.len() == before {
            return Err(format!("nothing to blame: {}", unknown.join("\n")).into());
        }
    }
}

/// The bytes of a span.
fn bytes(source: &str, span: mutants::Span) -> Range<usize> {
    let byte = |place: mutants::Place| {
        let before = source.split_inclusive('\n').take(place.line - 1);
        let line: usize = before.map(str::len).sum();
        let columns = source[line..].chars().take(place.column - 1);
        line + columns.map(char::len_utf8).sum::<usize>()
    };
    byte(span.start)..byte(span.end)
}

/// Which of these mutants do not compile by themselves: of each body one at a time, all
/// bodies at once, as an error in one says nothing of another.
fn uncompiled(tree: &Tree, mutants: &[Mutant], ids: &[usize]) -> Result<BTreeSet<usize>> {
    let mut failing = BTreeSet::new();
    let mut bodies = BTreeMap::<_, Vec<usize>>::new();
    for &id in ids {
        let mutant = &mutants[id];
        bodies
            .entry((&mutant.file, mutant.span.start))
            .or_default()
            .push(id);
    }
    let most = bodies.values().map(Vec::len).max().unwrap_or(0);
    for turn in 0..most {
        let mut chosen: Vec<usize> = bodies
            .values()
            .filter_map(|ids| ids.get(turn).copied())
            .collect();
        while !chosen.is_empty() {
            // From the last place of a file on, so that the others stay where they are.
            chosen.sort_by_key(|&id| (&mutants[id].file, mutants[id].span.start));
            let mut places = BTreeMap::<&str, Vec<(Range<usize>, usize)>>::new();
            let mut sources = BTreeMap::new();
            for (path, ids) in mutants::by_file(mutants) {
                let source = fs::read_to_string(tree.root.join(path))?;
                let (mut text, mut at) = (String::new(), 0);
                for id in ids.into_iter().filter(|id| chosen.contains(id)) {
                    let mutant = &mutants[id];
                    let range = bytes(&source, mutant.span);
                    if range.start < at {
                        return Err(format!("{} lies in another", mutant.name).into());
                    }
                    text.push_str(&source[at..range.start]);
                    let start = text.len();
                    text.push_str(&mutant.replacement);
                    places
                        .entry(path)
                        .or_default()
                        .push((start..text.len(), id));
                    at = range.end;
                }
                if at > 0 {
                    text.push_str(&source[at..]);
                    fs::write(tree.root.join(path), text)?;
                    sources.insert(path, source);
                }
            }
            let checked = tree.check();
            for (path, source) in sources {
                fs::write(tree.root.join(path), source)?;
            }
            let (said, compiles) = checked?;
            if compiles {
                break;
            }
            let before = failing.len();
            for value in said
                .iter()
                .filter(|value| value["message"]["level"] == "error")
            {
                let spans = value["message"]["spans"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                for span in spans.iter().filter(|span| span["is_primary"] == true) {
                    let of_file = span["file_name"].as_str().and_then(|path| places.get(path));
                    let start = span["byte_start"].as_u64().unwrap_or(u64::MAX) as usize;
                    let blamed = of_file.into_iter().flatten();
                    failing.extend(
                        blamed
                            .filter(|(range, _)| (range.start..=range.end).contains(&start))
                            .map(|(_, id)| *id),
                    );
                }
            }
            if failing.len() == before {
                // Whoever is at fault is found alone.
                break;
            }
            chosen.retain(|id| !failing.contains(id));
        }
    }
    Ok(failing)
}

/// The mutant by itself, as cargo-mutants would make it.
fn alone(tree: &Tree, mutant: &Mutant) -> Result<Outcome> {
    let path = tree.root.join(&mutant.file);
    let source = fs::read_to_string(&path)?;
    let Range { start, end } = bytes(&source, mutant.span);
    fs::write(
        &path,
        format!(
            "{}{}{}",
            &source[..start],
            mutant.replacement,
            &source[end..]
        ),
    )?;
    let outcome = (|| {
        if !tree.check()?.1 {
            return Ok(Outcome::Uncompiled);
        }
        // Most are noticed by the first of the targets.
        let mut done = Vec::new();
        for targets in [&tree.targets[..1], &tree.targets[..]] {
            let Some(mut executables) = tree.build(targets)?.1 else {
                // The library is compiled, its tests are not: rustc noticed.
                return Ok(Outcome::Uncompiled);
            };
            executables.retain(|executable| !done.contains(executable));
            for test in &tree.tests(&executables)? {
                match tree.run(test, None, 10 * test.took + 3 * GRACE)? {
                    Some(true) => {}
                    Some(false) => return Ok(Outcome::Noticed),
                    None => return Ok(Outcome::TimedOut),
                }
            }
            done = executables;
        }
        Ok(Outcome::Survived)
    })();
    fs::write(&path, source)?;
    outcome
}

fn main() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(3).collect();
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .ok_or("LIST WORK PACKAGE FEATURES [TARGETS]")
    };
    let (list, work, package, features) = (next()?, PathBuf::from(next()?), next()?, next()?);
    let mutants: Vec<Mutant> = serde_json::from_reader(File::open(list)?)?;
    fs::create_dir_all(&work)?;
    let work = fs::canonicalize(work)?;
    renew(&work, &asked)?;

    let plain = Tree {
        root: work.join("plain"),
        target: work.join("target"),
        wrapper: None,
        package,
        features,
        targets: arguments.collect(),
    };
    plain.fill()?;
    let (tree, executables, without) = switched_tree(&work, &plain, &mutants)?;
    let mut tests = tree.tests(&executables)?;
    let reach = work.join("reach");
    for test in &mut tests {
        let begun = Instant::now();
        if tree.run(test, None, Duration::from_secs(600))? != Some(true) {
            return Err(format!("{} fails without any mutant", test.name).into());
        }
        test.took = begun.elapsed();
        let _ = fs::remove_file(&reach);
        let path = reach.to_str().ok_or("a path in UTF-8")?;
        tree.run(test, Some(("MUTANT_REACH", path)), Duration::from_secs(600))?;
        let reached = fs::read_to_string(&reach).unwrap_or_default();
        test.reaches = reached
            .lines()
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
    }
    tests.sort_by_key(|test| test.took);
    eprintln!(
        "{} mutants, {} without a switch, {} tests of {:.1} s",
        mutants.len(),
        without.len(),
        tests.len(),
        tests
            .iter()
            .map(|test| test.took.as_secs_f64())
            .sum::<f64>(),
    );

    let outcomes = work.join("outcomes");
    let done: BTreeSet<String> = fs::read_to_string(&outcomes)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split('\t').nth(1).map(str::to_owned))
        .collect();
    let mut outcomes = File::options().create(true).append(true).open(outcomes)?;
    let mut slow = Vec::new();
    // In an order that makes what is done when time is up a sample.
    let mut order: Vec<_> = (0..mutants.len()).collect();
    order.sort_by_key(|&id| (id as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for id in order {
        let mutant = &mutants[id];
        if done.contains(&mutant.name) {
            continue;
        }
        let reaching: Vec<_> = tests
            .iter()
            .filter(|test| test.reaches.contains(&id))
            .collect();
        // What the compiler evaluates has no switch either.
        if reaching.is_empty() {
            slow.push(id);
            continue;
        }
        let (mut outcome, mut by) = (Outcome::Survived, "");
        for test in reaching {
            let limit = 10 * test.took + GRACE;
            let number = id.to_string();
            match tree.run(test, Some(("MUTANT", &number)), limit)? {
                Some(true) => continue,
                Some(false) => outcome = Outcome::Noticed,
                None => outcome = Outcome::TimedOut,
            }
            by = &test.name;
            break;
        }
        writeln!(
            outcomes,
            "{}\t{}\t{}\t{by}",
            outcome.name(),
            mutant.name,
            mutant.title()
        )?;
    }
    let failing = uncompiled(&plain, &mutants, &slow)?;
    eprintln!(
        "{} by themselves, {} of which do not compile",
        slow.len(),
        failing.len()
    );
    for id in slow {
        let mutant = &mutants[id];
        let outcome = match failing.contains(&id) {
            true => Outcome::Uncompiled,
            false => alone(&plain, mutant)?,
        };
        writeln!(
            outcomes,
            "{}\t{}\t{}\t",
            outcome.name(),
            mutant.name,
            mutant.title()
        )?;
    }
    Ok(())
}
