//! Files that ask for more memory than there is, or that never end, are refused in a
//! sentence before anything of the kind is read.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use he_edge_tests::assert_one_sentence;
use he_nn::data::{self, DataError, Split};
use he_nn::import::schema::{FLOAT, GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use he_nn::import::{self, ImportError, InputKind};
use host_runner::commands::{Failure, ModelFile};
use prost::Message;
use tempfile::TempDir;

/// For what should take moments. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `work` gives, unless it waits for something.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(PATIENCE).expect("it hangs")
}

#[cfg(unix)]
fn pipe(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    path
}

#[test]
#[cfg(unix)]
fn a_model_that_is_no_file_is_refused() {
    let folder = TempDir::new().unwrap();
    let huge = folder.path().join("huge.hemodel");
    // Without blocks on the disk.
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    for (path, reason) in [
        (pipe(folder.path(), "model.hemodel"), "a pipe or a device"),
        ("/dev/zero".into(), "a pipe or a device"),
        (folder.path().to_owned(), "a directory"),
        (huge, "1099511627776 bytes"),
    ] {
        let name = path.to_str().unwrap().to_owned();
        let refusal =
            in_time(move || ModelFile::open(&name).map(|_| ()).map_err(Box::new)).unwrap_err();
        assert!(matches!(*refusal, Failure::NoModel { .. }));
        assert_one_sentence(reason, &refusal);
        assert!(refusal.to_string().contains(reason), "{refusal}");
    }
}

/// The header of an IDX file.
fn header(magic: u32, words: &[u32]) -> Vec<u8> {
    let words = [&[magic], words].concat();
    words.into_iter().flat_map(u32::to_be_bytes).collect()
}

fn zipped(bytes: &[u8], zeros: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    for _ in 0..zeros >> 20 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap()
}

/// Two thousand million labels in a file that is a thousandth of them, and as many images.
#[test]
fn headers_do_not_decide_how_much_is_read() {
    let folder = TempDir::new().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let load = || data::load(folder.path(), Split::Test).unwrap_err();
    let mut images = header(2051, &[2, 28, 28]);
    images.extend([7; 2 * 784]);
    put("t10k-images-idx3-ubyte", &images);
    let many = 2_000_000_000;
    // As much as the header asks for would be read where nothing was compared.
    put(
        "t10k-labels-idx1-ubyte.gz",
        &zipped(&header(2049, &[many]), 64 << 20),
    );
    let refusal = load();
    assert!(
        matches!(refusal, DataError::Counts { images: 2, labels, .. } if labels == many as usize),
        "{refusal}"
    );
    put("t10k-images-idx3-ubyte", &header(2051, &[many, 28, 28]));
    let refusal = load();
    assert!(
        matches!(refusal, DataError::Many { got, .. } if got == many),
        "{refusal}"
    );
    assert_one_sentence("images", &refusal);
}

/// A file of some kilobytes whose every tensor names the same bytes of another: copied
/// once per tensor they would be 25 GB.
#[test]
fn external_numbers_are_not_copied_beyond_all_memory() {
    const TENSORS: usize = 100;
    let folder = TempDir::new().unwrap();
    let numbers = folder.path().join("numbers");
    fs::File::create(&numbers)
        .unwrap()
        .set_len(1 << 28)
        .unwrap();
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: key.into(),
        value: value.into(),
    };
    let import = |dims: Vec<i64>| {
        let tensor = |index: usize| TensorProto {
            dims: dims.clone(),
            data_type: FLOAT,
            name: format!("w{index}"),
            external_data: vec![entry("location", "numbers")],
            data_location: 1,
            ..TensorProto::default()
        };
        let model = ModelProto {
            graph: Some(GraphProto {
                initializer: (0..TENSORS).map(tensor).collect(),
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        };
        let bytes = model.encode_to_vec();
        assert!(bytes.len() < 13_000, "{}", bytes.len());
        let file = folder.path().join("m.onnx");
        fs::write(&file, bytes).unwrap();
        import::read(&file, "m", InputKind::Pixels).unwrap_err()
    };
    for (dims, reason) in [
        (vec![784, 10], "more than its shape has"),
        (vec![1 << 26], "more than 1073741824 bytes"),
        (vec![i64::MAX, i64::MAX], "more than its shape has"),
        (vec![-1], "more than its shape has"),
    ] {
        let refusal = import(dims);
        assert!(matches!(refusal, ImportError::Tensor { .. }), "{refusal}");
        assert_one_sentence(reason, &refusal);
        assert!(refusal.to_string().contains(reason), "{refusal}");
    }
}

/// As many files as tensors, each within what one may have: together they would be 25 GB.
#[test]
fn external_files_are_bounded_together() {
    let folder = TempDir::new().unwrap();
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: key.into(),
        value: value.into(),
    };
    let tensor = |index: usize| {
        let numbers = format!("numbers{index}");
        let file = fs::File::create(folder.path().join(&numbers)).unwrap();
        file.set_len(1 << 28).unwrap();
        TensorProto {
            dims: vec![1],
            data_type: FLOAT,
            name: format!("w{index}"),
            external_data: vec![entry("location", &numbers), entry("length", "4")],
            data_location: 1,
            ..TensorProto::default()
        }
    };
    let model = ModelProto {
        graph: Some(GraphProto {
            initializer: (0..100).map(tensor).collect(),
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    let path = folder.path().join("m.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    let refusal = import::read(&path, "m", InputKind::Pixels).unwrap_err();
    // Three were read, and four bytes of each are more than a quarter of what is allowed.
    assert!(
        matches!(&refusal, ImportError::External { name, .. } if name == "w3"),
        "{refusal}"
    );
    assert_one_sentence("external", &refusal);
}

#[test]
#[cfg(unix)]
fn an_onnx_file_that_is_no_file_is_refused() {
    let folder = TempDir::new().unwrap();
    for path in [pipe(folder.path(), "m.onnx"), "/dev/zero".into()] {
        let refusal = in_time(move || import::read(&path, "m", InputKind::Pixels).map(|_| ()));
        let refusal = refusal.unwrap_err();
        assert!(matches!(refusal, ImportError::Read { .. }), "{refusal}");
        assert!(
            refusal.to_string().contains("a pipe or a device"),
            "{refusal}"
        );
    }
}
