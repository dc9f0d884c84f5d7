use std::fs;
use std::io::Write;

use image::{GrayImage, RgbImage, RgbaImage};
use npyz::WriterBuilder;

use super::super::table::Table;
use super::*;

fn open(path: &Path, split: Split) -> Result<Samples, DataError> {
    Samples::open(path, split, &Choice::default())
}

/// Refused in one line that says all of this.
fn refused(result: Result<Samples, DataError>, parts: &[&str]) {
    let error = result.unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    for part in parts {
        assert!(error.contains(part), "{error}");
    }
}

fn shape(channels: u16, height: u16, width: u16) -> Shape {
    Shape {
        channels,
        height,
        width,
    }
}

fn pixels(samples: &Samples, index: usize) -> Vec<u8> {
    match samples.all()[index].0 {
        Sample::Pixels(pixels) => pixels.to_vec(),
        Sample::Features(_) => panic!("{:?}", samples.form()),
    }
}

fn features(samples: &Samples, index: usize) -> Vec<f32> {
    match samples.all()[index].0 {
        Sample::Features(features) => features.to_vec(),
        Sample::Pixels(_) => panic!("{:?}", samples.form()),
    }
}

/// An IDX file.
fn idx(magic: u32, dims: &[u32], bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    let words = [magic].into_iter().chain(dims.iter().copied());
    words.flat_map(u32::to_be_bytes).chain(bytes).collect()
}

#[test]
fn idx_files_of_any_shape() {
    let folder = tempfile::tempdir().unwrap();
    let put = |images: Vec<u8>, labels: Vec<u8>| {
        fs::write(folder.path().join("train-images-idx3-ubyte"), images).unwrap();
        fs::write(folder.path().join("train-labels-idx1-ubyte"), labels).unwrap();
        open(folder.path(), Split::Train)
    };
    let labels = |count: u32| idx(0x0801, &[count], (0..count).map(|i| i as u8 + 40));
    // Rows and columns that differ, and labels beyond 9.
    let grey = put(idx(0x0803, &[2, 3, 5], 0..30), labels(2)).unwrap();
    assert_eq!(grey.form(), Form::Image(shape(1, 3, 5)));
    assert_eq!(grey.all()[1].1, 41);
    assert_eq!(pixels(&grey, 1), (15..30).collect::<Vec<u8>>());
    // Channels in front, and behind: the latter are brought to the front.
    let first = put(idx(0x0804, &[1, 3, 2, 2], 0..12), labels(1)).unwrap();
    assert_eq!(pixels(&first, 0), (0..12).collect::<Vec<u8>>());
    let last = put(idx(0x0804, &[1, 5, 2, 3], 0..30), labels(1)).unwrap();
    assert_eq!(last.form(), Form::Image(shape(3, 5, 2)));
    let red: Vec<u8> = (0..10).map(|place| 3 * place).collect();
    assert_eq!(pixels(&last, 0)[..10], red);

    refused(
        put(idx(0x0803, &[2, 3, 5], 0..29), labels(2)),
        &["cut short"],
    );
    refused(put(idx(0x0803, &[2, 3, 5], 0..31), labels(2)), &["goes on"]);
    refused(
        put(idx(0x0803, &[2, 3, 5], 0..30), labels(3)),
        &["2 images", "3 labels"],
    );
    refused(
        put(idx(0x0803, &[u32::MAX, 3, 5], 0..30), labels(2)),
        &["4294967295 samples"],
    );
    refused(
        put(idx(0x0803, &[2, 300, 500], 0..30), labels(2)),
        &["[300, 500]"],
    );
    refused(put(idx(0x0803, &[2, 0, 5], 0..30), labels(2)), &["[0, 5]"]);
    refused(
        put(idx(0x0803, &[1 << 20, 50, 50], 0..30), labels(2)),
        &["2621440000 bytes"],
    );
    refused(
        put(idx(0x0803, &[0, 3, 5], 0..0), labels(0)),
        &["no images"],
    );
    refused(
        put(idx(0x0802, &[2, 3, 5], 0..30), labels(2)),
        &["0x00000802"],
    );
    fs::remove_file(folder.path().join("train-labels-idx1-ubyte")).unwrap();
    refused(
        open(folder.path(), Split::Train),
        &["train-labels-idx1-ubyte"],
    );
    let text = grey.fitting(Form::Image(shape(3, 32, 32)), folder.path());
    refused(text, &["images of 1x3x5", "images of 3x32x32"]);
}

/// Twelve rows of two features and a label.
fn rows(label: impl Fn(usize) -> String) -> String {
    (0..12)
        .map(|i| format!("{i},{}.5,{}\n", i * 10, label(i)))
        .collect()
}

fn table(text: &str, label: Option<&str>) -> Result<Samples, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("any.csv");
    fs::write(&file, text).unwrap();
    let choice = Choice {
        label: label.map(str::to_owned),
    };
    // Named itself, or the directory that has no other.
    let named = Samples::open(&file, Split::Train, &choice);
    if let Ok(samples) = &named {
        assert_eq!(
            *samples,
            Samples::open(folder.path(), Split::Train, &choice).unwrap()
        );
    }
    named
}

#[test]
fn tables_with_and_without_a_header() {
    let plain = table(&rows(|i| (i % 2).to_string()), None).unwrap();
    assert_eq!((plain.form(), plain.len()), (Form::Features(2), 8));
    assert!(plain.classes().is_empty());
    for (index, (_, label)) in plain.all().into_iter().enumerate() {
        let row = features(&plain, index);
        assert_eq!(row[1], row[0] * 10.0 + 0.5);
        assert_eq!(f32::from(label), row[0] % 2.0);
    }
    let headed = format!("width,height,kind\r\n{}", rows(|i| (i % 2).to_string()));
    assert_eq!(table(&headed, None).unwrap(), plain);
    assert_eq!(table(&headed, Some("kind")).unwrap(), plain);
    assert_eq!(table(&headed, Some("3")).unwrap(), plain);
    // A column in front, by its usual name.
    let front = "class,a,b\n".to_owned()
        + &(0..12)
            .map(|i| format!("{},{i},{}.5\n", i % 2, i * 10))
            .collect::<String>();
    assert_eq!(table(&front, None).unwrap(), plain);
    // Of the first column.
    let first = table(&headed, Some("width")).unwrap();
    assert_eq!(features(&first, 0)[1], f32::from(first.all()[0].1 % 2));
    // The order of scikit-learn: text by letters, numbers by size.
    let named = table(&rows(|i| ["red", "blue", "green"][i % 3].into()), None).unwrap();
    assert_eq!(named.classes(), ["blue", "green", "red"]);
    let numbers = table(&rows(|i| ["10", "9", "-1"][i % 3].into()), None).unwrap();
    assert_eq!(numbers.classes(), ["-1", "9", "10"]);
    let spellings = table(&rows(|i| ["2", "1.0", "1", "2.00"][i % 4].into()), None).unwrap();
    assert_eq!(spellings.classes(), ["1", "2"]);
    let zeros = table(&rows(|i| ["-0", "0", "1e0"][i % 3].into()), None).unwrap();
    assert!(zeros.classes().is_empty());
    // Names that are numbers, as pandas writes them, but for that of the labels.
    let numbered = rows(|i| (i % 2).to_string());
    assert_eq!(
        table(&format!("0,1,target\n{numbered}"), None).unwrap(),
        plain
    );
    assert_eq!(
        table(&format!("0,1,kind\n{numbered}"), Some("kind")).unwrap(),
        plain
    );
    refused(
        table(&format!("0,1,kind\n{numbered}"), None),
        &["\"kind\"", "--label"],
    );
    // A class that is called as columns of labels are.
    let named = table(&rows(|i| ["y", "n"][i % 2].into()), None).unwrap();
    assert_eq!(
        (named.len(), named.classes()),
        (8, &["n".into(), "y".into()][..])
    );
    // The likeliest name, wherever it stands.
    let last = format!("width,y,label\n{numbered}");
    assert_eq!(table(&last, None).unwrap(), plain);
}

#[test]
fn what_is_wrong_with_a_table_is_named() {
    let headed = |text: &str| format!("width,height,kind\n{text}");
    let sound = rows(|i| (i % 2).to_string());
    for missing in ["", "NaN", "?", "NA"] {
        let text = headed(&sound.replace("3,30.5", &format!("3,{missing}")));
        refused(
            table(&text, None),
            &["line 5", "column 2 (height)", "missing"],
        );
    }
    let text = headed(&sound.replace("3,30.5", "3,tall"));
    refused(
        table(&text, None),
        &["line 5", "column 2 (height)", "\"tall\""],
    );
    let infinite = sound.replace("3,30.5", "3,inf");
    refused(
        table(&infinite, None),
        &["line 4", "column 2 of", "\"inf\""],
    );
    refused(
        table(&sound.replace("3,30.5", "3"), None),
        &["line 4 has 2 fields", "3"],
    );
    refused(table("1\n2\n", None), &["one field"]);
    let many = "1,0\n".repeat((1 << 20) + 1);
    refused(table(&many, None), &["1048577 samples"]);
    refused(table("", None), &["no rows"]);
    refused(table("1,2,0\n", None), &["1 rows", "ten"]);
    refused(
        table(&headed(&sound), Some("colour")),
        &["\"colour\"", "width, height, kind"],
    );
    refused(table(&sound, Some("4")), &["numbers from 1 to 3"]);
    let many: String = (0..300).map(|i| format!("1,{i}\n")).collect();
    refused(table(&many, None), &["300 different values", "--label"]);
}

#[test]
fn a_compressed_table_is_not_cut() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("any.csv.gz");
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(&b"1,0\n".repeat(100)).unwrap();
    let bytes = writer.finish().unwrap();
    fs::write(&file, bytes).unwrap();
    let read = |most| records::rows(&file, &Choice::default(), most).err();
    assert!(read(400).is_none());
    // At the end of a row, and within one.
    for most in [399, 395, 300] {
        let error = read(most).unwrap().to_string();
        assert!(
            error.contains(&format!("more than {most} bytes")),
            "{error}"
        );
    }
}

#[test]
fn tables_of_two_files_have_the_classes_of_both() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    put("train.csv", "1,2,b\n3,4,c\n");
    put("test.csv", "5,6,c\n7,8,a\n");
    let [train, test] =
        [Split::Train, Split::Test].map(|split| open(folder.path(), split).unwrap());
    assert_eq!(train.classes(), ["a", "b", "c"]);
    let labels = |samples: &Samples| -> Vec<u8> { samples.all().iter().map(|s| s.1).collect() };
    assert_eq!((labels(&train), labels(&test)), (vec![1, 2], vec![2, 0]));
    put("test.csv", "5,6,7,c\n");
    refused(
        open(folder.path(), Split::Test),
        &["3 features", "other split has 2"],
    );
    put("other.csv", "1,2\n");
    fs::remove_file(folder.path().join("test.csv")).unwrap();
    refused(
        open(folder.path(), Split::Test),
        &["2 files", "name the file itself"],
    );
}

#[test]
fn the_diabetes_table_is_read_and_split_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: usize| format!("{i},{},72,35,0,33.6,0.627,50,{}\n", 100 + i % 7, i % 2);
    let text: String = (0..40).map(row).collect();
    fs::write(folder.path().join("pima-indians-diabetes.csv"), text).unwrap();
    let (train, test) = Table::load(folder.path()).unwrap().split(SPLIT_SEED);
    for (table, split) in [(train, Split::Train), (test, Split::Test)] {
        let samples = open(folder.path(), split).unwrap();
        assert!(samples.all().into_iter().eq(table.samples()));
        let (means, deviations) = table.standard();
        assert_eq!(samples.standard(), (means.to_vec(), deviations.to_vec()));
    }
}

/// An NPY file.
fn npy<T: npyz::AutoSerialize + Clone>(dims: &[u64], values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(dims)
        .writer(&mut bytes)
        .begin_nd()
        .unwrap();
    writer.extend(values.iter().cloned()).unwrap();
    writer.finish().unwrap();
    bytes
}

fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file(format!("{name}.npy"), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn arrays_of_numpy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("any.npz");
    let put = |members: &[(&str, Vec<u8>)]| {
        fs::write(&file, npz(members)).unwrap();
        open(folder.path(), Split::Train)
    };
    // Images with channels behind, as Keras has them, and the splits by name.
    let images: Vec<u8> = (0..60).collect();
    let members = [
        ("x_train", npy(&[2, 5, 2, 3], &images)),
        ("y_train", npy(&[2], &[7i64, 3])),
        ("x_test", npy(&[1, 5, 2, 3], &images[..30])),
        ("y_test", npy(&[1, 1], &[7u8])),
    ];
    let train = put(&members).unwrap();
    assert_eq!(train.form(), Form::Image(shape(3, 5, 2)));
    assert_eq!(pixels(&train, 1)[..3], [30, 33, 36]);
    assert_eq!(train.classes(), ["3", "7"]);
    // A label has the same number in a split that lacks a class.
    let test = open(&file, Split::Test).unwrap();
    assert_eq!((test.len(), test.all()[0].1), (1, 1));
    assert_eq!(test.classes(), ["3", "7"]);
    // Features without splits.
    let rows: Vec<f32> = (0..40).map(|x| x as f32 / 2.0).collect();
    let parts = [("x", npy(&[20, 2], &rows)), ("y", npy(&[20], &[0i32; 20]))];
    let train = put(&parts).unwrap();
    assert_eq!((train.form(), train.len()), (Form::Features(2), 14));
    // As files of their own.
    let separate = tempfile::tempdir().unwrap();
    fs::write(separate.path().join("x_test.npy"), &parts[0].1).unwrap();
    fs::write(separate.path().join("y_test.npy"), &parts[1].1).unwrap();
    assert_eq!(open(separate.path(), Split::Test).unwrap().len(), 20);
    fs::write(
        separate.path().join("y_train.npy"),
        npy(&[2], &[-1.0f64, 0.0]),
    )
    .unwrap();
    let test = open(separate.path(), Split::Test).unwrap();
    assert_eq!(
        (test.classes(), test.all()[0].1),
        (&["-1".into(), "0".into()][..], 1)
    );
    let archives = tempfile::tempdir().unwrap();
    for (name, labels) in [("train", [2i64, 5]), ("test", [5, 5])] {
        let members = [("x", npy(&[2, 1], &[0.5f32; 2])), ("y", npy(&[2], &labels))];
        fs::write(archives.path().join(format!("{name}.npz")), npz(&members)).unwrap();
    }
    let test = open(archives.path(), Split::Test).unwrap();
    assert_eq!(test.all()[0].1, 1);

    // More than is read, as the shape says.
    let claim = |shape: &str| {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut array = b"\x93NUMPY\x01\x00".to_vec();
        array.extend((header.len() as u16).to_le_bytes());
        array.extend(header.as_bytes());
        put(&[("x", array), parts[1].clone()])
    };
    refused(claim("(2000000, 1)"), &["[2000000, 1]", "1048576 samples"]);
    refused(
        claim("(1000, 500000)"),
        &["[1000, 500000]", "134217728 numbers"],
    );
    let unlabelled = [parts[0].clone(), ("y", npy(&[20], &[f32::NAN; 20]))];
    refused(put(&unlabelled), &["\"NaN\"", "without a label"]);
    let mut gap = rows.clone();
    gap[5] = f32::NAN;
    let gap = [("x", npy(&[20, 2], &gap)), parts[1].clone()];
    refused(put(&gap), &["line 3, column 2", "missing"]);
    let short = [parts[0].clone(), ("y", npy(&[19], &[0i32; 19]))];
    refused(put(&short), &["[20, 2]", "[19]"]);
    let floats = [
        ("x", npy(&[2, 2, 2], &[0.5f32; 8])),
        ("y", npy(&[2], &[0u8; 2])),
    ];
    refused(put(&floats), &["[2, 2]", "uint8"]);
    refused(put(&[("z", npy(&[1], &[0u8]))]), &["neither x_train"]);
    fs::write(&file, b"no archive").unwrap();
    refused(open(&file, Split::Train), &["no sound NPZ"]);
    let sound = npz(&parts);
    for len in (0..sound.len()).step_by(7) {
        fs::write(&file, &sound[..len]).unwrap();
        open(&file, Split::Train).unwrap_err();
    }
}

/// Two classes of three images each, in `train` and `test`, as PNG and JPEG.
fn folders(root: &Path) {
    for (split, base) in [("train", 0), ("test", 100)] {
        for (at, class) in ["cat", "dog"].into_iter().enumerate() {
            let folder = root.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for index in 0..3u8 {
                let colour = [base + 20 * at as u8 + index, 7, 200];
                let image = RgbImage::from_pixel(6, 4, image::Rgb(colour));
                let ending = if index == 2 { "jpg" } else { "png" };
                image
                    .save(folder.join(format!("{index}.{ending}")))
                    .unwrap();
            }
        }
    }
}

#[test]
fn images_in_folders_by_class() {
    let folder = tempfile::tempdir().unwrap();
    folders(folder.path());
    let test = open(folder.path(), Split::Test).unwrap();
    assert_eq!((test.form(), test.len()), (Form::Image(shape(3, 4, 6)), 6));
    assert_eq!(test.classes(), ["cat", "dog"]);
    for (index, (_, label)) in test.all().into_iter().enumerate() {
        let image = pixels(&test, index);
        // A JPEG is near to what it was made of.
        let (red, green, blue) = (image[0], image[24], image[48]);
        let near = |got: u8, wanted: u8| got.abs_diff(wanted) <= 4;
        assert!(red >= 96 && (red >= 116) == (label == 1), "{red} {label}");
        assert!(near(green, 7) && near(blue, 200), "{green} {blue}");
    }
    // The same from a tar, compressed or not.
    let tars = tempfile::tempdir().unwrap();
    let file = tars.path().join("images.tar");
    let mut builder = tar::Builder::new(fs::File::create(&file).unwrap());
    builder.append_dir_all("images", folder.path()).unwrap();
    builder.finish().unwrap();
    assert_eq!(open(tars.path(), Split::Test).unwrap(), test);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&fs::read(&file).unwrap()).unwrap();
    let zipped = tars.path().join("images.tar.gz");
    fs::write(&zipped, encoder.finish().unwrap()).unwrap();
    assert_eq!(open(&zipped, Split::Test).unwrap(), test);
    fs::write(&zipped, &fs::read(&file).unwrap()[..700]).unwrap();
    refused(open(&zipped, Split::Test), &["no sound tar"]);

    // Grey among coloured ones, of another size, with transparency, and broken.
    let put = folder.path().join("test/cat/0.png");
    GrayImage::from_pixel(6, 4, image::Luma([9]))
        .save(&put)
        .unwrap();
    open(folder.path(), Split::Test).unwrap();
    RgbImage::new(5, 4).save(&put).unwrap();
    refused(open(folder.path(), Split::Test), &["3x4x5", "3x4x6"]);
    RgbaImage::new(6, 4).save(&put).unwrap();
    refused(
        open(folder.path(), Split::Test),
        &["cat/0.png", "transparency"],
    );
    fs::write(&put, b"no image").unwrap();
    refused(
        open(folder.path(), Split::Test),
        &["cat/0.png", "no sound PNG"],
    );
    RgbImage::new(6000, 4).save(&put).unwrap();
    refused(open(folder.path(), Split::Test), &["3x4x6000"]);
}

#[test]
fn images_without_splits_and_without_classes() {
    let folder = tempfile::tempdir().unwrap();
    folders(folder.path());
    let one = folder.path().join("train");
    let (train, test) = (open(&one, Split::Train), open(&one, Split::Test));
    assert_eq!((train.unwrap().len(), test.unwrap().len()), (4, 2));
    let bare = folder.path().join("train/cat");
    refused(open(&bare, Split::Train), &["folders by class"]);
    let empty = tempfile::tempdir().unwrap();
    refused(
        open(empty.path(), Split::Test),
        &["holds no t10k-images", "test split"],
    );
    refused(
        open(&empty.path().join("no"), Split::Test),
        &["cannot be looked into"],
    );
    let parquet = empty.path().join("table.parquet");
    fs::write(&parquet, b"PAR1").unwrap();
    refused(open(&parquet, Split::Test), &["Parquet", "CSV"]);
}

#[test]
fn binary_files_of_cifar() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("cifar-10-batches-bin");
    fs::create_dir(&below).unwrap();
    let record = |label: u8| [vec![label], vec![label + 1; 3072]].concat();
    fs::write(
        below.join("data_batch_1.bin"),
        [record(3), record(9)].concat(),
    )
    .unwrap();
    fs::write(below.join("data_batch_2.bin"), record(0)).unwrap();
    fs::write(below.join("test_batch.bin"), record(5)).unwrap();
    let train = open(folder.path(), Split::Train).unwrap();
    assert_eq!(
        (train.form(), train.len()),
        (Form::Image(shape(3, 32, 32)), 3)
    );
    assert_eq!((train.all()[1].1, pixels(&train, 1)[3071]), (9, 10));
    assert_eq!(open(folder.path(), Split::Test).unwrap().all()[0].1, 5);
    fs::write(below.join("test_batch.bin"), &record(5)[1..]).unwrap();
    refused(open(folder.path(), Split::Test), &["3072 bytes", "3073"]);
    fs::write(below.join("test_batch.bin"), record(10)).unwrap();
    refused(open(folder.path(), Split::Test), &["label 0", "is 10"]);
}
