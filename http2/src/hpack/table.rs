//! The tables of fields: the static one (RFC 7541, appendix A) and a connection's own.

use ringway_message::FieldName;
use std::collections::VecDeque;

/// Fields that everybody knows, from index 1 on.
pub(crate) const FIELDS: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// What an entry counts besides its name and value (RFC 7541, 4.1).
const ENTRY_OVERHEAD: u64 = 32;

/// A field of either table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'t> {
    pub(crate) name: &'t [u8],
    pub(crate) value: &'t [u8],
    /// The first index in the static table whose name this is; 0 if there is none, or nobody has looked.
    pub(crate) static_name: u8,
    /// What its name means, and whether name and value are well formed: judged once, when it came.
    pub(crate) kind: FieldName,
    pub(crate) well_formed: bool,
    /// `name: value` CR LF, where it lies so.
    pub(crate) line: Option<&'t [u8]>,
}

/// Entry `index` of the static table.
pub(crate) fn static_entry(index: u32) -> Option<Entry<'static>> {
    ENTRIES.get(index.wrapping_sub(1) as usize).copied()
}

const ENTRIES: [Entry<'static>; FIELDS.len()] = {
    let none = Entry { name: b"", value: b"", static_name: 0, kind: FieldName::Other, well_formed: true, line: None };
    let mut entries = [none; FIELDS.len()];
    let mut at = 0;
    while at < FIELDS.len() {
        let static_name = FIRST_OF_NAME[at];
        let (name, value) = FIELDS[at];
        entries[at] = Entry { name, value, static_name, kind: kind_of_static(static_name), ..none };
        at += 1;
    }
    entries
};

/// The first index that has the name of each.
const FIRST_OF_NAME: [u8; FIELDS.len()] = {
    let mut firsts = [0; FIELDS.len()];
    let mut at = 0;
    while at < FIELDS.len() {
        // Equal names follow each other.
        firsts[at] = if at > 0 && is_same(FIELDS[at].0, FIELDS[at - 1].0) { firsts[at - 1] } else { at as u8 + 1 };
        at += 1;
    }
    firsts
};

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Longest name of the static table.
const STATIC_NAME_BYTES_MAX: usize = 27;

/// First indices of the names that are no pseudo-fields, by their length; and where those of each length begin.
const BY_LENGTH: ([u8; FIELDS.len()], [u8; STATIC_NAME_BYTES_MAX + 2]) = {
    let (mut sorted, mut begins) = ([0; FIELDS.len()], [0; STATIC_NAME_BYTES_MAX + 2]);
    let (mut count, mut length) = (0, 0);
    while length <= STATIC_NAME_BYTES_MAX {
        begins[length] = count as u8;
        let mut at = 0;
        while at < FIELDS.len() {
            let name = FIELDS[at].0;
            if name.len() == length && name[0] != b':' && FIRST_OF_NAME[at] as usize == at + 1 {
                sorted[count] = at as u8 + 1;
                count += 1;
            }
            at += 1;
        }
        length += 1;
    }
    begins[length] = count as u8;
    (sorted, begins)
};

/// The first index of a field's name, a token, in the static table, however it is spelled; 0 if it is not there. Pseudo-fields are not looked
/// for.
pub(crate) fn static_name(name: &[u8]) -> u8 {
    let (sorted, begins) = &BY_LENGTH;
    let (Some(&begin), Some(&end)) = (begins.get(name.len()), begins.get(name.len() + 1)) else { return 0 };
    let known = sorted[usize::from(begin)..usize::from(end)].iter().find(|&&index| {
        let known = FIELDS[usize::from(index) - 1].0;
        // Of what a name can have, this makes upper case lower and leaves all else that is compared with.
        let differs = |(known, byte): (&u8, &u8)| known ^ (byte | 0x20);
        let is_first = known.first().zip(name.first()).is_some_and(|first| differs(first) == 0);
        is_first && known.iter().zip(name).fold(0, |all, pair| all | differs(pair)) == 0
    });
    known.copied().unwrap_or_default()
}

/// What a peer's encoder has told to remember: lines of text one after the other in one buffer, none an allocation of its own. That of
/// each is less than what the RFC counts for it.
///
/// New ones are appended, old ones leave at the front; the room that they leave is taken again once it is half of what is held, so
/// that each byte is moved twice at most.
#[derive(Debug, Default)]
pub(crate) struct DynamicTable {
    bytes: Vec<u8>,
    /// Where the oldest entry begins.
    start: usize,
    /// Newest first.
    slots: VecDeque<Slot>,
    /// As the RFC counts it.
    size: u64,
    size_max: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    at: u32,
    name_len: u32,
    value_len: u32,
    static_name: u8,
    kind: FieldName,
    well_formed: bool,
}

/// What a name means that is in the static table first at this index, and not spelled out.
const fn kind_of_static(static_name: u8) -> FieldName {
    match static_name {
        28 => FieldName::ContentLength,
        32 => FieldName::Cookie,
        35 => FieldName::Expect,
        38 => FieldName::Host,
        48 => FieldName::ProxyAuthenticate,
        57 => FieldName::TransferEncoding,
        _ => FieldName::Other,
    }
}

/// The same of any name.
pub(crate) fn kind_of(static_name: u8, name: &[u8]) -> FieldName {
    if static_name == 0 { FieldName::classify(name) } else { kind_of_static(static_name) }
}

/// What stands between name and value, and behind it.
const COLON: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";
const LINE_OVERHEAD: usize = COLON.len() + LINE_END.len();

impl DynamicTable {
    pub(crate) fn new(size_max: u32) -> Self {
        Self { size_max, ..Self::default() }
    }

    pub(crate) fn size_max(&self) -> u32 {
        self.size_max
    }

    /// Sets the size that entries may have together; the oldest leave until they do.
    pub(crate) fn set_size_max(&mut self, size_max: u32) {
        self.size_max = size_max;
        self.evict(u64::from(size_max));
    }

    /// Entry `index`, from 0 on, newest first.
    pub(crate) fn get(&self, index: u32) -> Option<Entry<'_>> {
        let slot = self.slots.get(usize::try_from(index).ok()?)?;
        let Slot { at, name_len, value_len, static_name, kind, well_formed } = *slot;
        let (name_len, value_len) = (name_len as usize, value_len as usize);
        let line = self.bytes.get(at as usize..at as usize + name_len + value_len + LINE_OVERHEAD)?;
        let name = line.get(..name_len)?;
        let value = line.get(name_len + COLON.len()..line.len() - LINE_END.len())?;
        Some(Entry { name, value, static_name, kind, well_formed, line: Some(line) })
    }

    /// Adds an entry; the oldest leave for it. One that is larger than the table empties it (RFC 7541, 4.4).
    pub(crate) fn insert(&mut self, entry: Entry<'_>) {
        let length = entry.name.len() + entry.value.len();
        let size = length as u64 + ENTRY_OVERHEAD;
        if size > u64::from(self.size_max) {
            return self.evict(0);
        }
        self.evict(u64::from(self.size_max) - size);
        self.make_room(length + LINE_OVERHEAD);
        self.slots.push_front(Slot {
            at: self.bytes.len() as u32,
            name_len: entry.name.len() as u32,
            value_len: entry.value.len() as u32,
            static_name: entry.static_name,
            kind: entry.kind,
            well_formed: entry.well_formed,
        });
        for part in [entry.name, COLON, entry.value, LINE_END] {
            self.bytes.extend_from_slice(part);
        }
        self.size += size;
    }

    /// The oldest leave until there are at most so many bytes.
    fn evict(&mut self, size: u64) {
        while self.size > size {
            let Some(slot) = self.slots.pop_back() else { break };
            let length = slot.name_len as usize + slot.value_len as usize;
            self.start += length + LINE_OVERHEAD;
            self.size -= length as u64 + ENTRY_OVERHEAD;
        }
        if self.slots.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    fn make_room(&mut self, length: usize) {
        if self.bytes.len() + length <= self.bytes.capacity() {
            return;
        }
        let held = self.bytes.len() - self.start;
        if self.start > 0 && self.start >= held / 2 {
            self.compact();
        }
        let needed = self.bytes.len() + length;
        if needed > self.bytes.capacity() {
            let most = (self.size_max as usize).saturating_mul(3) / 2;
            let capacity = needed.max(self.bytes.capacity().saturating_mul(2).min(most));
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
    }

    /// Moves what is held to the front.
    fn compact(&mut self) {
        self.bytes.drain(..self.start);
        for slot in &mut self.slots {
            slot.at -= self.start as u32;
        }
        self.start = 0;
    }

    /// Gives back what holds no entry.
    pub(crate) fn shrink(&mut self) {
        self.compact();
        self.bytes.shrink_to_fit();
        self.slots.shrink_to_fit();
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.slots.capacity() * size_of::<Slot>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_the_static_table_are_found_however_they_are_spelled() {
        for (at, (name, _)) in FIELDS.iter().enumerate() {
            let first = FIELDS.iter().position(|(known, _)| known == name).unwrap() as u8 + 1;
            assert_eq!(static_entry(at as u32 + 1).unwrap().static_name, first);
            let found = if name[0] == b':' { 0 } else { first };
            assert_eq!(static_name(name), found);
            assert_eq!(static_name(&name.to_ascii_uppercase()), found);
        }
        for name in ["", "x", "x-request-id", "accept-encodinh", "a-name-that-is-longer-than-any-of-them"] {
            assert_eq!(static_name(name.as_bytes()), 0, "{name}");
        }
        assert_eq!(static_entry(0), None);
        assert_eq!(static_entry(62), None);
    }

    /// The table as the RFC describes it, with an allocation for each.
    #[derive(Default)]
    struct Plain(VecDeque<(Vec<u8>, Vec<u8>)>, usize);

    impl Plain {
        fn size(&self) -> usize {
            self.0.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
        }

        fn fit(&mut self, size: usize) {
            while self.size() > size {
                self.0.pop_back();
            }
        }
    }

    fn entry<'t>(name: &'t [u8], value: &'t [u8], line: Option<&'t [u8]>) -> Entry<'t> {
        Entry { name, value, static_name: 7, kind: FieldName::Cookie, well_formed: false, line }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(usize, usize),
        Resize(usize),
        Shrink,
    }

    proptest! {
        #[test]
        fn it_remembers_what_a_plain_table_does_in_bounded_memory(
            size_max in 0_usize..600,
            steps in prop::collection::vec(
                prop_oneof![
                    20 => (0_usize..40, 0_usize..300).prop_map(|(name, value)| Step::Insert(name, value)),
                    2 => (0_usize..600).prop_map(Step::Resize),
                    1 => Just(Step::Shrink),
                ],
                0..200,
            ),
        ) {
            let mut table = DynamicTable::new(size_max as u32);
            let mut plain = Plain(VecDeque::new(), size_max);
            for (count, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(name, value) => {
                        let (name, value) = (vec![count as u8; name], vec![!(count as u8); value]);
                        table.insert(entry(&name, &value, None));
                        let size = name.len() + value.len() + 32;
                        plain.fit(plain.1.saturating_sub(size));
                        if size <= plain.1 {
                            plain.0.push_front((name, value));
                        } else {
                            plain.0.clear();
                        }
                    }
                    Step::Resize(size) => {
                        table.set_size_max(size as u32);
                        plain.1 = size;
                        plain.fit(size);
                    }
                    Step::Shrink => table.shrink(),
                }
                for (index, (name, value)) in plain.0.iter().enumerate() {
                    let line = [name, COLON, value, LINE_END].concat();
                    prop_assert_eq!(table.get(index as u32), Some(entry(name, value, Some(&line))));
                }
                prop_assert_eq!(table.get(plain.0.len() as u32), None);
                prop_assert!(table.bytes.capacity() <= 900, "{}", table.bytes.capacity());
            }
        }
    }
}
