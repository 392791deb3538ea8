//! Streams of keys: uniform, Zipf, and a flash crowd.

/// A stream of random numbers: SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1, 1 not included.
    pub fn fraction(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.fraction()).ln()
    }
}

/// What keys come how often.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Workload {
    /// All alike.
    Uniform,
    /// The k-th most frequent comes in proportion to `1 / k^s`.
    Zipf(f64),
    /// Zipf 0.9, and from the middle on a new key takes a fifth of all.
    FlashCrowd,
}

impl Workload {
    /// Those of the tables.
    pub const ALL: [Self; 5] = [Self::Uniform, Self::Zipf(0.9), Self::Zipf(1.1), Self::Zipf(1.3), Self::FlashCrowd];

    /// Its name in the tables.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Uniform => "uniform".into(),
            Self::Zipf(s) => format!("Zipf {s}"),
            Self::FlashCrowd => "flash crowd".into(),
        }
    }
}

/// Draws keys of a workload.
#[derive(Debug)]
pub struct Keys {
    workload: Workload,
    /// Cumulative shares of the keys, for Zipf.
    cumulative: Vec<f64>,
    count: u64,
}

impl Keys {
    /// Over so many keys.
    #[must_use]
    pub fn new(workload: Workload, count: u64) -> Self {
        let exponent = match workload {
            Workload::Uniform => None,
            Workload::Zipf(exponent) => Some(exponent),
            Workload::FlashCrowd => Some(0.9),
        };
        let mut cumulative = Vec::new();
        if let Some(exponent) = exponent {
            let mut sum = 0.0;
            for rank in 1..=count {
                sum += (rank as f64).powf(-exponent);
                cumulative.push(sum);
            }
            cumulative.iter_mut().for_each(|share| *share /= sum);
        }
        Self { workload, cumulative, count }
    }

    /// The next key; `progress` is how far the run is, 0 to 1.
    pub fn draw(&self, random: &mut Random, progress: f64) -> u64 {
        let fraction = random.fraction();
        if self.workload == Workload::FlashCrowd && progress > 0.5 && random.fraction() < 0.2 {
            return self.count;
        }
        if self.cumulative.is_empty() {
            return (fraction * self.count as f64) as u64;
        }
        self.cumulative.partition_point(|share| *share < fraction) as u64
    }
}
