//! Every figure of the three papers, as printed.
//!
//! Records and the report take their column "paper" from here and from nowhere else.

/// A paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Paper {
    /// Xiang, Dalla, Wu: Homomorphic Encryption for Neural Network Deployment: An
    /// Empirical Security Evaluation. 2025.
    Xiang2025,
    /// Shin, Choi, Choi: Is Homomorphic Encryption-Based Deep Learning Secure Enough?
    /// Sensors 21, 7806. 2021.
    Shin2021,
    /// Chen, Song: Privacy Preserving Training and Evaluation with Homomorphic
    /// Encryption: A Case Study on Machine Learning Models. December 2021.
    ChenSong2021,
}

/// A table or a part of a paper's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Table {
    /// Whose.
    pub paper: Paper,
    /// Its number or section.
    pub name: &'static str,
}

/// One printed figure.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Figure {
    /// Where it stands.
    pub table: Table,
    /// Its row.
    pub row: &'static str,
    /// Its column, with the unit where it has one.
    pub column: &'static str,
    /// The value.
    pub value: f64,
}

const fn table(paper: Paper, name: &'static str) -> Table {
    Table { paper, name }
}

/// Xiang, Dalla, Wu, Table 1: membership inference and extraction.
pub const XIANG_1: Table = table(Paper::Xiang2025, "Table 1");
/// Xiang, Dalla, Wu, "Still working on code and results": gradient-based inversion.
pub const XIANG_INVERSION: Table = table(Paper::Xiang2025, "planned: gradient-based inversion");
/// Xiang, Dalla, Wu, "Still working on code and results": the game.
pub const XIANG_GAME: Table = table(Paper::Xiang2025, "planned: NN-indistinguishability");
/// Shin, Choi, Choi, Table 1: the network for MNIST.
pub const SHIN_1: Table = table(Paper::Shin2021, "Table 1");
/// Shin, Choi, Choi, Table 2: the network for Fashion-MNIST.
pub const SHIN_2: Table = table(Paper::Shin2021, "Table 2");
/// Shin, Choi, Choi, Table 3: accuracy.
pub const SHIN_3: Table = table(Paper::Shin2021, "Table 3");
/// Shin, Choi, Choi, Table 4: accuracy under attack, eps 0.3.
pub const SHIN_4: Table = table(Paper::Shin2021, "Table 4");
/// Shin, Choi, Choi, Table 5: reconstruction.
pub const SHIN_5: Table = table(Paper::Shin2021, "Table 5");
/// Shin, Choi, Choi, Table 6: shadow models, MNIST.
pub const SHIN_6: Table = table(Paper::Shin2021, "Table 6");
/// Shin, Choi, Choi, Table 7: shadow models, Fashion-MNIST.
pub const SHIN_7: Table = table(Paper::Shin2021, "Table 7");
/// Shin, Choi, Choi, abstract.
pub const SHIN_ABSTRACT: Table = table(Paper::Shin2021, "abstract");
/// Chen, Song, the text on logistic regression.
pub const CHEN_LOGISTIC: Table = table(Paper::ChenSong2021, "logistic regression");
/// Chen, Song, Table 1: time per image and accuracy.
pub const CHEN_1: Table = table(Paper::ChenSong2021, "Table 1");
/// Chen, Song, Table 2: EncFCNN by layer.
pub const CHEN_2: Table = table(Paper::ChenSong2021, "Table 2");
/// Chen, Song, Table 3: EncCNN by layer.
pub const CHEN_3: Table = table(Paper::ChenSong2021, "Table 3");

/// A row of figures under their columns.
macro_rules! figures {
    ($($table:ident { $($row:literal: $($column:literal = $value:literal),+;)+ })+) => {
        &[$($($(Figure { table: $table, row: $row, column: $column, value: $value },)+)+)+]
    };
}

/// All figures.
pub const FIGURES: &[Figure] = figures! {
    XIANG_1 {
        "membership inference, accuracy": "Black-Box" = 0.505, "Poly-HE" = 0.495, "difference" = 0.010;
        "membership inference, precision": "Black-Box" = 0.503, "Poly-HE" = 0.497, "difference" = 0.005;
        "membership inference, recall": "Black-Box" = 1.000, "Poly-HE" = 0.990, "difference" = 0.010;
        "membership inference, AUC": "Black-Box" = 0.443, "Poly-HE" = 0.485, "difference" = -0.042;
        "model extraction, agreement": "Black-Box" = 0.872, "Poly-HE" = 0.824, "difference" = 0.048;
    }
    SHIN_1 {
        "convolution": "parameters" = 130.0;
        "dense 100": "parameters" = 98100.0;
        "dense 10": "parameters" = 1010.0;
    }
    SHIN_2 {
        "convolution": "parameters" = 130.0;
        "dense 128": "parameters" = 125568.0;
        "dense 10": "parameters" = 1280.0;
    }
    SHIN_3 {
        "mnist": "train" = 0.990, "test" = 0.971;
        "fashion-mnist": "train" = 0.934, "test" = 0.884;
    }
    SHIN_4 {
        "mnist": "none" = 0.971, "FGSM" = 0.081, "BIM" = 0.017, "C&W" = 0.027;
        "fashion-mnist": "none" = 0.884, "FGSM" = 0.094, "BIM" = 0.013, "C&W" = 0.031;
    }
    SHIN_ABSTRACT {
        "mean over data sets and attacks": "accuracy before" = 0.927, "accuracy under attack" = 0.043;
        "reconstruction": "reclassification" = 0.888;
    }
    SHIN_5 {
        "mnist": "base-line accuracy" = 0.999, "reclassification" = 0.945, "SSIM" = 0.998;
        "fashion-mnist": "base-line accuracy" = 0.941, "reclassification" = 0.832, "SSIM" = 0.972;
    }
    SHIN_6 {
        "2 shadows, base, train": "accuracy" = 1.00, "recall" = 1.00, "precision" = 1.00;
        "2 shadows, half, train": "accuracy" = 1.00, "recall" = 1.00, "precision" = 1.00;
        "2 shadows, 20 %, train": "accuracy" = 1.00, "recall" = 1.00, "precision" = 1.00;
        "2 shadows, base, test": "accuracy" = 0.494, "recall" = 0.498, "precision" = 0.494;
        "2 shadows, half, test": "accuracy" = 0.501, "recall" = 0.395, "precision" = 0.502;
        "2 shadows, 20 %, test": "accuracy" = 0.493, "recall" = 0.695, "precision" = 0.495;
        "4 shadows, base, train": "accuracy" = 0.843, "recall" = 0.750, "precision" = 0.923;
        "4 shadows, half, train": "accuracy" = 0.843, "recall" = 0.937, "precision" = 0.789;
        "4 shadows, 20 %, train": "accuracy" = 0.812, "recall" = 0.937, "precision" = 0.750;
        "4 shadows, base, test": "accuracy" = 0.505, "recall" = 0.257, "precision" = 0.510;
        "4 shadows, half, test": "accuracy" = 0.500, "recall" = 0.731, "precision" = 0.500;
        "4 shadows, 20 %, test": "accuracy" = 0.502, "recall" = 0.823, "precision" = 0.501;
        "8 shadows, base, train": "accuracy" = 0.609, "recall" = 0.656, "precision" = 0.600;
        "8 shadows, half, train": "accuracy" = 0.710, "recall" = 0.578, "precision" = 0.787;
        "8 shadows, 20 %, train": "accuracy" = 0.609, "recall" = 0.703, "precision" = 0.592;
        "8 shadows, base, test": "accuracy" = 0.498, "recall" = 0.620, "precision" = 0.498;
        "8 shadows, half, test": "accuracy" = 0.505, "recall" = 0.388, "precision" = 0.506;
        "8 shadows, 20 %, test": "accuracy" = 0.497, "recall" = 0.704, "precision" = 0.498;
    }
    SHIN_7 {
        "2 shadows, base, train": "accuracy" = 1.00, "recall" = 1.00, "precision" = 1.00;
        "2 shadows, half, train": "accuracy" = 1.00, "recall" = 1.00, "precision" = 1.00;
        "2 shadows, 20 %, train": "accuracy" = 1.00, "recall" = 1.00, "precision" = 1.00;
        "2 shadows, base, test": "accuracy" = 0.496, "recall" = 0.621, "precision" = 0.497;
        "2 shadows, half, test": "accuracy" = 0.502, "recall" = 0.732, "precision" = 0.501;
        "2 shadows, 20 %, test": "accuracy" = 0.496, "recall" = 0.573, "precision" = 0.496;
        "4 shadows, base, train": "accuracy" = 0.687, "recall" = 0.812, "precision" = 0.650;
        "4 shadows, half, train": "accuracy" = 0.562, "recall" = 0.250, "precision" = 0.666;
        "4 shadows, 20 %, train": "accuracy" = 0.625, "recall" = 0.937, "precision" = 0.576;
        "4 shadows, base, test": "accuracy" = 0.503, "recall" = 0.653, "precision" = 0.502;
        "4 shadows, half, test": "accuracy" = 0.500, "recall" = 0.227, "precision" = 0.501;
        "4 shadows, 20 %, test": "accuracy" = 0.503, "recall" = 0.750, "precision" = 0.502;
        "8 shadows, base, train": "accuracy" = 0.609, "recall" = 0.578, "precision" = 0.616;
        "8 shadows, half, train": "accuracy" = 0.617, "recall" = 0.515, "precision" = 0.647;
        "8 shadows, 20 %, train": "accuracy" = 0.570, "recall" = 0.828, "precision" = 0.546;
        "8 shadows, base, test": "accuracy" = 0.503, "recall" = 0.570, "precision" = 0.503;
        "8 shadows, half, test": "accuracy" = 0.503, "recall" = 0.524, "precision" = 0.503;
        "8 shadows, 20 %, test": "accuracy" = 0.499, "recall" = 0.860, "precision" = 0.499;
    }
    CHEN_LOGISTIC {
        "evaluation on encrypted data": "plain accuracy" = 0.68125, "encrypted accuracy" = 0.675;
        "training on encrypted data": "accuracy" = 0.7375, "encryption, s, at least" = 8.0, "encryption, s, at most" = 10.0, "five epochs, s" = 200.0;
    }
    CHEN_1 {
        "FCNN": "s per image" = 0.02337, "accuracy" = 0.9615, "images" = 10000.0;
        "CNN": "s per image" = 0.06209, "accuracy" = 0.9828, "images" = 10000.0;
        "EncFCNN": "s per image" = 102.8, "accuracy" = 0.98, "images" = 50.0;
        "EncCNN": "s per image" = 10.74, "accuracy" = 1.00, "images" = 100.0;
    }
    CHEN_2 {
        "FC1 (784,1024)": "s" = 54.21;
        "FC2 (1024,64)": "s" = 42.45;
        "FC3 (64,10)": "s" = 0.9442;
    }
    CHEN_3 {
        "Conv2D (1,4)": "s" = 1.099;
        "FC1 (256,64)": "s" = 7.433;
        "FC2 (64,10)": "s" = 0.6196;
    }
};

/// A printed figure; `None` where the table has no such cell.
#[must_use]
pub fn figure(table: Table, row: &str, column: &str) -> Option<f64> {
    let found = FIGURES
        .iter()
        .find(|f| f.table == table && f.row == row && f.column == column);
    found.map(|figure| figure.value)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    #[test]
    fn every_cell_stands_once_and_no_table_lacks_one() {
        let mut cells = HashSet::new();
        let mut counts = BTreeMap::new();
        for f in FIGURES {
            assert!(cells.insert((f.table, f.row, f.column)), "{f:?}");
            *counts
                .entry(format!("{:?} {}", f.table.paper, f.table.name))
                .or_insert(0) += 1;
        }
        let counts: Vec<i32> = counts.into_values().collect();
        assert_eq!(
            counts,
            [12, 3, 3, 6, 3, 3, 4, 8, 6, 54, 54, 3, 15],
            "in the order of the names"
        );
    }

    #[test]
    fn the_printed_figures_agree_with_each_other() {
        let at = |table, row, column| figure(table, row, column).unwrap();
        // The abstract's 0.043 is the mean of Table 4; its 0.888 that of Table 5.
        let rows = ["mnist", "fashion-mnist"];
        let cells = rows
            .iter()
            .flat_map(|row| ["FGSM", "BIM", "C&W"].map(|c| at(SHIN_4, row, c)));
        let mean = cells.sum::<f64>() / 6.0;
        let printed = at(
            SHIN_ABSTRACT,
            "mean over data sets and attacks",
            "accuracy under attack",
        );
        assert!((mean - printed).abs() < 1e-3);
        let mean = rows
            .iter()
            .map(|row| at(SHIN_5, row, "reclassification"))
            .sum::<f64>()
            / 2.0;
        assert!((mean - at(SHIN_ABSTRACT, "reconstruction", "reclassification")).abs() < 1e-3);
        for f in FIGURES
            .iter()
            .filter(|f| f.table == XIANG_1 && f.column == "difference")
        {
            let difference = at(XIANG_1, f.row, "Black-Box") - at(XIANG_1, f.row, "Poly-HE");
            assert!((difference - f.value).abs() < 1.5e-3, "{f:?}");
        }
        assert_eq!(figure(SHIN_4, "mnist", "PGD"), None);
    }
}
