//! Counts of instructions, which have no noise: where no path depends on a secret, every
//! count is the same.

/// Counts of one operation over many secrets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    /// How many.
    pub samples: usize,
    /// The least.
    pub least: u64,
    /// The largest.
    pub largest: u64,
    /// Their variance, of the sample as it is.
    pub variance: f64,
}

/// Sums up counts; `None` of none.
#[must_use]
pub fn counts(all: &[u64]) -> Option<Counts> {
    let (least, largest) = (*all.iter().min()?, *all.iter().max()?);
    // From the least, so that squares are exact: counts differ by little.
    let excess = || all.iter().map(|&count| (count - least) as f64);
    let n = all.len() as f64;
    let mean = excess().sum::<f64>() / n;
    Some(Counts {
        samples: all.len(),
        least,
        largest,
        variance: excess().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n,
    })
}
