//! Pictures of a page as files of their own, for documents.

use attacks::record::Picture;

use super::draw::{self, Look};
use super::{Found, PAPERS, curves};

/// Ink that is readable on light and on dark ground: a file of its own has no text around
/// it to take a colour from.
const INK: &str = "#808080";

/// A caption as the name of a file: letters, digits and single hyphens.
fn stem(caption: &str) -> String {
    let parts = caption.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

/// The ending of a picture's file and what it holds; nothing where it cannot be drawn, which
/// the page says.
fn file_of(picture: &Picture) -> Option<(&'static str, Vec<u8>)> {
    match draw::draw(picture).ok()? {
        Look::Png { file, .. } => Some(("png", file)),
        Look::Svg(svg) => {
            let own = svg.replacen("<svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"", 1);
            Some(("svg", own.replace("currentColor", INK).into_bytes()))
        }
    }
}

/// Every picture of a page as a file with its name: images as PNG, curves as SVG, named by
/// their captions.
#[must_use]
pub fn picture_files(found: &Found) -> Vec<(String, Vec<u8>)> {
    let drawn: Vec<(String, Picture)> = PAPERS.iter().flat_map(|p| curves(found, *p)).collect();
    let all = found.pictures.iter().chain(&drawn);
    let files = all.filter_map(|(caption, picture)| {
        let (ending, bytes) = file_of(picture)?;
        Some((format!("{}.{ending}", stem(caption)), bytes))
    });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_files_that_stand_alone() {
        let found = Found {
            pictures: vec![
                (
                    "a grid, of / two".into(),
                    Picture::Images {
                        width: 2,
                        columns: vec!["1".into()],
                        images: vec![vec![0.0, 0.5, 1.0, 0.25]],
                    },
                ),
                (
                    "../curve".into(),
                    Picture::Curves {
                        x: "x".into(),
                        y: "y".into(),
                        logarithmic: false,
                        curves: vec![("one".into(), vec![(0.0, 0.5), (1.0, 0.9)])],
                    },
                ),
                (
                    "nothing".into(),
                    Picture::Images {
                        width: 0,
                        columns: Vec::new(),
                        images: Vec::new(),
                    },
                ),
            ],
            ..Found::default()
        };
        let [(grid, png), (curve, svg)] = &picture_files(&found)[..] else {
            panic!();
        };
        assert_eq!((&**grid, &**curve), ("a-grid-of-two.png", "..-curve.svg"));
        assert!(png.starts_with(b"\x89PNG"));
        let svg = std::str::from_utf8(svg).unwrap();
        assert!(svg.contains("xmlns") && svg.contains(INK) && !svg.contains("currentColor"));
    }
}
