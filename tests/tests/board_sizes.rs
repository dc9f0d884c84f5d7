//! The image of every board: it builds, fits its flash, and is no larger than
//! the committed table says.
//!
//! `HE_EDGE_UPDATE_SIZES=1` writes the table anew.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use he_edge_tests::{MAX_CODE, MAX_FLASH_CODE, MAX_KEEPING_CODE};
use he_nn::boards::BOARDS;
use host_runner::device::firmware_build::{self, Options};
use host_runner::image::{Image, Sizes};
use host_runner::planning::DEFAULT_SET;

/// A size may grow by this part before the test fails.
const TOLERANCE: f64 = 0.02;

/// The same where another compiler than the table's made the image.
const OTHER_COMPILER: f64 = 0.15;

const HEADER: &str = "board,compiler,code,tables,model,ram";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    board: String,
    compiler: String,
    sizes: Sizes,
}

impl Row {
    fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.split(',').collect();
        let [board, compiler, code, tables, model, ram] = fields[..] else {
            panic!("{line}");
        };
        let number = |text: &str| text.parse().unwrap();
        Self {
            board: board.into(),
            compiler: compiler.into(),
            sizes: Sizes {
                code: number(code),
                tables: number(tables),
                model: number(model),
                ram: number(ram),
            },
        }
    }

    fn line(&self) -> String {
        let Sizes {
            code,
            tables,
            model,
            ram,
        } = self.sizes;
        format!(
            "{},{},{code},{tables},{model},{ram}",
            self.board, self.compiler
        )
    }
}

fn table() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../firmware/benches/sizes.csv")
}

#[test]
fn every_board_has_an_image_of_its_size() {
    let rows: Vec<Row> = BOARDS
        .iter()
        .map(|board| {
            let options = Options {
                board: board.name,
                model: None,
                params: DEFAULT_SET,
                features: &[],
                inputs: None,
            };
            let path = firmware_build::build(&options).unwrap();
            let image = Image::read(&path).unwrap();
            let (name, sizes) = (board.name, image.sizes);
            let most = match (board.key_bytes(0), board.flash) {
                (0, _) => MAX_CODE,
                (_, None) => MAX_CODE + MAX_KEEPING_CODE,
                (_, Some(_)) => MAX_CODE + MAX_KEEPING_CODE + MAX_FLASH_CODE,
            };
            assert!(sizes.code <= most, "{name}: {sizes:?}");
            assert!(sizes.flash() <= board.flash_bytes as u64, "{name}");
            // A board's abstraction layer may panic; what is ours does not.
            if board.feature.is_none() {
                assert_eq!(image.unwanted, [""; 0], "{name}");
            }
            Row {
                board: name.into(),
                compiler: image.compiler,
                sizes,
            }
        })
        .collect();
    let lines: Vec<String> = rows.iter().map(Row::line).collect();
    let text = format!("{HEADER}\n{}\n", lines.join("\n"));
    // Past the capture of the output: the table is to be seen.
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    if std::env::var_os("HE_EDGE_UPDATE_SIZES").is_some() {
        fs::write(table(), &text).unwrap();
        return;
    }

    let committed = fs::read_to_string(table()).unwrap();
    let mut committed = committed.lines();
    assert_eq!(committed.next(), Some(HEADER));
    let committed: Vec<Row> = committed.map(Row::parse).collect();
    let names = |rows: &[Row]| rows.iter().map(|row| row.board.clone()).collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&rows));
    for (then, now) in committed.iter().zip(&rows) {
        let tolerance = if then.compiler == now.compiler {
            TOLERANCE
        } else {
            OTHER_COMPILER
        };
        let parts = |s: Sizes| [s.code, s.tables, s.model, s.ram];
        for (then_bytes, now_bytes) in parts(then.sizes).into_iter().zip(parts(now.sizes)) {
            assert!(
                now_bytes as f64 <= then_bytes as f64 * (1.0 + tolerance),
                "{then:?} has become {now:?}: if that is meant, write the table anew with \
                 HE_EDGE_UPDATE_SIZES=1"
            );
        }
    }
}
