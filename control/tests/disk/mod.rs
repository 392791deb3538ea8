//! A disk in memory that fails as told, deterministically.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

/// What a disk writes at once or not at all.
const SECTOR: usize = 512;

/// SplitMix64: seeds that follow each other give unrelated numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Within `0..bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each test has faults of its own")]
pub(crate) enum Fault {
    /// This and every later operation fails; then `lose_power` decides about what was not synced.
    PowerLoss,
    /// Writes and growth fail, reads do not.
    Full,
    /// Every operation fails.
    Broken,
}

#[derive(Debug)]
struct State {
    /// What reads see.
    current: Vec<u8>,
    /// What a power loss leaves for certain.
    synced: Vec<u8>,
    /// Sectors written since the last sync, each with every content it had.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Lengths the file had since the last sync.
    lengths: Vec<usize>,
    operations_left: Option<(u64, Fault)>,
    failing: Option<Fault>,
    hanging: bool,
    random: Random,
}

/// All clones are one disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    #[allow(dead_code, reason = "the simulation makes its disks of images")]
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(Vec::new(), seed)
    }

    #[allow(dead_code, reason = "for the tests of the store alone")]
    pub(crate) fn of(image: Vec<u8>) -> Self {
        Self::with(image, 0)
    }

    pub(crate) fn with(image: Vec<u8>, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            synced: image.clone(),
            current: image,
            dirty: BTreeMap::new(),
            lengths: Vec::new(),
            operations_left: None,
            failing: None,
            hanging: false,
            random: Random::new(seed ^ 0x5eed),
        })))
    }

    /// The `operations`-th write, growth or sync from now on fails, and all after it.
    pub(crate) fn fail_after(&self, operations: u64, fault: Fault) {
        self.0.lock().unwrap().operations_left = Some((operations, fault));
    }

    /// Syncs do not return until this is taken back.
    #[allow(dead_code, reason = "the tests of the store alone do not wait")]
    pub(crate) fn hang(&self, hanging: bool) {
        self.0.lock().unwrap().hanging = hanging;
    }

    #[allow(dead_code, reason = "the tests of the cluster do not repair")]
    pub(crate) fn repair(&self) {
        let mut state = self.0.lock().unwrap();
        state.failing = None;
        state.operations_left = None;
    }

    /// It has lost power.
    #[allow(dead_code, reason = "for the simulation alone")]
    pub(crate) fn is_dark(&self) -> bool {
        self.0.lock().unwrap().failing == Some(Fault::PowerLoss)
    }

    /// A fault has begun.
    #[allow(dead_code, reason = "for the simulation alone")]
    pub(crate) fn has_failed(&self) -> bool {
        self.0.lock().unwrap().failing.is_some()
    }

    #[allow(dead_code, reason = "for the tests of the store alone")]
    pub(crate) fn image(&self) -> Vec<u8> {
        self.0.lock().unwrap().current.clone()
    }

    /// Each sector that was not synced keeps its old content, or one of those written since, or a torn one of them;
    /// the file has one of the lengths it had.
    #[allow(dead_code, reason = "for the tests of the store alone")]
    pub(crate) fn lose_power(&self) {
        let mut state = self.0.lock().unwrap();
        let State { synced, dirty, lengths, random, .. } = &mut *state;
        let mut image = std::mem::take(synced);
        lengths.push(image.len());
        let length = lengths[random.below(lengths.len() as u64) as usize];
        image.resize(length, 0);
        for (sector, contents) in std::mem::take(dirty) {
            let at = sector * SECTOR;
            if at >= image.len() {
                continue;
            }
            let end = (at + SECTOR).min(image.len());
            let pick = &contents[random.below(contents.len() as u64) as usize];
            let take = match random.below(8) {
                0..3 => 0,
                3..7 => SECTOR,
                // Not what disks promise, but some do.
                _ => random.below(SECTOR as u64) as usize,
            };
            let take = take.min(end - at).min(pick.len());
            image[at..at + take].copy_from_slice(&pick[..take]);
        }
        state.lengths.clear();
        state.synced.clone_from(&image);
        state.current = image;
        state.failing = None;
        state.operations_left = None;
    }
}

impl State {
    fn count(&mut self) -> io::Result<()> {
        if let Some((left, fault)) = &mut self.operations_left {
            if *left == 0 {
                self.failing = Some(*fault);
            } else {
                *left -= 1;
            }
        }
        match self.failing {
            None => Ok(()),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::PowerLoss | Fault::Broken) => Err(io::Error::other("input/output error")),
        }
    }

    fn readable(&self) -> io::Result<()> {
        match self.failing {
            None | Some(Fault::Full) => Ok(()),
            Some(Fault::PowerLoss | Fault::Broken) => Err(io::Error::other("input/output error")),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let state = self.0.lock().unwrap();
        state.readable()?;
        Ok(state.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        state.readable()?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = start.checked_add(out.len()).and_then(|end| state.current.get(start..end));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.count()?;
        let before = state.current.len();
        state.lengths.push(before);
        state.current.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        while self.0.lock().unwrap().hanging {
            // Between two looks: the disk hangs for as long as the test says.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let mut state = self.0.lock().unwrap();
        state.count()?;
        let State { current, synced, dirty, .. } = &mut *state;
        synced.resize(current.len(), 0);
        for (sector, _) in std::mem::take(dirty) {
            let at = sector * SECTOR;
            let end = (at + SECTOR).min(current.len());
            if at < end {
                synced[at..end].copy_from_slice(&current[at..end]);
            }
        }
        state.lengths.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.count()?;
        let start = offset as usize;
        let end = start + data.len();
        if end > state.current.len() {
            let before = state.current.len();
            state.lengths.push(before);
            state.current.resize(end, 0);
        }
        state.current[start..end].copy_from_slice(data);
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let content = state.current[sector * SECTOR..((sector + 1) * SECTOR).min(state.current.len())].to_vec();
            state.dirty.entry(sector).or_default().push(content);
        }
        Ok(())
    }
}
