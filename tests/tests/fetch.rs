//! Downloads of data sets, from mirrors of this process that break off, know no ranges,
//! give another file or nothing.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use he_edge_tests::assert_one_sentence;
use host_runner::fetch::{FetchError, SOURCES, Source, SourceFile, fetch, source};
use sha2::{Digest, Sha256};

/// How a mirror serves its one file.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Whole,
    /// Ends after so many bytes, each time.
    BreaksOff(usize),
    NoRanges,
    Another,
    Longer,
    /// A page that is short and something else.
    Page,
    Missing,
}

/// A mirror, and the ranges that it was asked for.
struct Mirror {
    url: String,
    asked: Arc<Mutex<Vec<Option<usize>>>>,
}

fn content() -> Vec<u8> {
    (0..200_000_u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect()
}

fn mirror(manner: Manner) -> Mirror {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut from = None;
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(line)) = lines.next()
                && !line.is_empty()
            {
                let line = line.to_ascii_lowercase();
                if let Some(range) = line.strip_prefix("range: bytes=") {
                    from = range.trim_end_matches('-').parse().ok();
                }
            }
            log.lock().unwrap().push(from);
            let mut body = content();
            match manner {
                Manner::Another => body[7] ^= 1,
                Manner::Page => body = b"<html>log in first</html>".to_vec(),
                Manner::Longer => body.push(0),
                _ => {}
            }
            let begin = match manner {
                Manner::NoRanges | Manner::Page => 0,
                _ => from.unwrap_or(0),
            };
            let body = &body[begin..];
            let status = match (manner, begin) {
                (Manner::Missing, _) => "404 Not Found",
                (_, 0) => "200 OK",
                _ => "206 Partial Content",
            };
            let sent = match manner {
                Manner::BreaksOff(bytes) => &body[..bytes.min(body.len())],
                Manner::Missing => &[],
                _ => body,
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            // The client may have seen enough.
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(sent);
        }
    });
    Mirror { url, asked }
}

/// The one file of these mirrors, as a data set that is pinned.
fn pinned() -> Source {
    let digest = Sha256::digest(content());
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let file = SourceFile {
        remote: "remote.bin",
        name: "local.bin",
        bytes: content().len() as u64,
        sha256: digits.leak(),
    };
    Source {
        name: "tried",
        mirrors: &[],
        files: Box::leak(Box::new([file])),
    }
}

fn get(mirrors: &[&Mirror], root: &std::path::Path) -> Result<u64, FetchError> {
    let urls: Vec<String> = mirrors.iter().map(|mirror| mirror.url.clone()).collect();
    let fetched = fetch(&pinned(), &urls, root, &mut ())?;
    assert_eq!(fs::read(root.join("tried/local.bin")).unwrap(), content());
    assert!(!root.join("tried/local.bin.part").exists());
    Ok(fetched[0].bytes_fetched)
}

#[test]
fn a_file_comes_whole_and_only_once() {
    let root = tempfile::tempdir().unwrap();
    let whole = mirror(Manner::Whole);
    assert_eq!(get(&[&whole], root.path()).unwrap(), 200_000);
    assert_eq!(get(&[&whole], root.path()).unwrap(), 0);
    assert_eq!(*whole.asked.lock().unwrap(), [None]);
    // One that was damaged on the disk is fetched again.
    let path = root.path().join("tried/local.bin");
    fs::write(&path, vec![0; 200_000]).unwrap();
    assert_eq!(get(&[&whole], root.path()).unwrap(), 200_000);
}

#[test]
fn what_was_cut_off_is_gone_on_with() {
    let root = tempfile::tempdir().unwrap();
    let short = mirror(Manner::BreaksOff(70_000));
    let error = get(&[&short], root.path()).unwrap_err();
    assert_one_sentence("a mirror that breaks off", &error);
    let whole = mirror(Manner::Whole);
    assert_eq!(get(&[&whole], root.path()).unwrap(), 130_000);
    assert_eq!(*whole.asked.lock().unwrap(), [Some(70_000)]);
}

#[test]
fn the_next_mirror_serves_where_one_does_not() {
    let root = tempfile::tempdir().unwrap();
    let all = [
        Manner::Missing,
        Manner::Another,
        Manner::Longer,
        Manner::BreaksOff(1_000),
        Manner::NoRanges,
    ]
    .map(mirror);
    let nowhere = Mirror {
        url: "http://127.0.0.1:1".into(),
        asked: Arc::default(),
    };
    let mut mirrors = vec![&nowhere];
    mirrors.extend(&all);
    get(&mirrors, root.path()).unwrap();
    // The last was asked for the rest, and sent all of it.
    assert_eq!(*all[4].asked.lock().unwrap(), [Some(1_000)]);
}

#[test]
fn what_a_wrong_page_left_is_not_held_against_the_next_mirror() {
    let root = tempfile::tempdir().unwrap();
    let (page, whole) = (mirror(Manner::Page), mirror(Manner::Whole));
    get(&[&page, &whole], root.path()).unwrap();
    // The rest first, then all of it.
    assert_eq!(*whole.asked.lock().unwrap(), [Some(25), None]);
}

#[test]
fn a_file_that_another_process_fetches_is_left_to_it() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("tried")).unwrap();
    let part = fs::File::create(root.path().join("tried/local.bin.part")).unwrap();
    part.lock().unwrap();
    let error = get(&[&mirror(Manner::Whole)], root.path()).unwrap_err();
    assert_one_sentence("a part that is locked", &error);
}

#[test]
fn another_file_than_the_pinned_one_is_not_kept() {
    for manner in [Manner::Another, Manner::Longer] {
        let root = tempfile::tempdir().unwrap();
        let error = get(&[&mirror(manner)], root.path()).unwrap_err();
        assert_one_sentence("another file", &error);
        assert!(error.to_string().contains("another file"), "{error}");
        assert_eq!(fs::read_dir(root.path().join("tried")).unwrap().count(), 0);
    }
}

#[test]
fn data_sets_are_known_by_name() {
    for known in SOURCES {
        assert_eq!(source(known.name).unwrap().name, known.name);
        assert!(!known.mirrors.is_empty());
        for file in known.files {
            assert_eq!(file.sha256.len(), 64, "{}", file.name);
        }
    }
    assert_one_sentence("a name nobody knows", &source("mnits").unwrap_err());
}
