//! The tables of fields: the static one (RFC 7541, appendix A) and a connection's own.

use ringway_message::FieldName;
use std::collections::VecDeque;

/// Fields of the static table, from index 1 on.
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
    /// The first index in the static table whose name this is; 0 if there is none, or it was not looked up.
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

/// Names that are often sent and that the static table has not, by numbers that go on where its indices end.
pub(crate) const OTHERS: [&[u8]; 33] = [
    b"te",
    b"dnt",
    b"origin",
    b"priority",
    b"alt-svc",
    b"forwarded",
    b"tracestate",
    b"traceparent",
    b"x-real-ip",
    b"x-request-id",
    b"x-powered-by",
    b"x-forwarded-for",
    b"x-frame-options",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-content-type-options",
    b"content-security-policy",
    b"grpc-status",
    b"grpc-timeout",
    b"grpc-message",
    b"grpc-encoding",
    b"grpc-accept-encoding",
    b"sec-ch-ua",
    b"sec-ch-ua-mobile",
    b"sec-ch-ua-platform",
    b"sec-fetch-site",
    b"sec-fetch-mode",
    b"sec-fetch-user",
    b"sec-fetch-dest",
    b"upgrade-insecure-requests",
    b"access-control-allow-headers",
    b"access-control-allow-methods",
];

/// The table of all names but those of pseudo-fields: no two of them are in one place.
const NAME_PLACES: usize = 256;
/// Found by trying: what keeps them apart.
const NAME_STEPS: [usize; 3] = [70, 99, 31];
const NAMES: [u8; NAME_PLACES] = {
    let mut names = [0; NAME_PLACES];
    let mut number = 1;
    while number < KNOWN.len() {
        let name = KNOWN[number];
        if name[0] != b':' {
            let place = place_of(name.len(), name[0], name[name.len() * 3 / 4], name[name.len() - 1]);
            assert!(names[place] == 0, "two names in one place");
            names[place] = number as u8;
        }
        number += 1;
    }
    names
};

/// Names by their numbers. None has the number 0.
const KNOWN: [&[u8]; 1 + FIELDS.len() + OTHERS.len()] = {
    let mut known: [&[u8]; 1 + FIELDS.len() + OTHERS.len()] = [b""; 1 + FIELDS.len() + OTHERS.len()];
    let mut number = 1;
    while number < known.len() {
        known[number] = if number <= FIELDS.len() { FIELDS[number - 1].0 } else { OTHERS[number - 1 - FIELDS.len()] };
        number += 1;
    }
    known
};

/// Of a name by its length, its first letter, one behind its middle and its last; upper case and lower case come to the same.
const fn place_of(length: usize, first: u8, middle: u8, last: u8) -> usize {
    let [by_length, by_first, by_middle] = NAME_STEPS;
    let (first, middle, last) = ((first & 31) as usize, (middle & 31) as usize, (last & 31) as usize);
    (length * by_length + first * by_first + middle * by_middle + last) % NAME_PLACES
}

/// The number of a field's name, a token, however it is spelled: its first index in the static table, or past those its place among
/// the others; 0 if it is not known. Pseudo-fields are not looked for.
#[inline]
pub(crate) fn number_of(name: &[u8]) -> u8 {
    let (Some(&first), Some(&middle), Some(&last)) = (name.first(), name.get(name.len() * 3 / 4), name.last()) else {
        return 0;
    };
    let number = NAMES[place_of(name.len(), first, middle, last)];
    let known = KNOWN.get(usize::from(number)).copied().unwrap_or_default();
    if known.len() == name.len() && is_spelled(name, known) { number } else { 0 }
}

/// Whether a token is this name in whatever case; both are as long.
#[inline]
fn is_spelled(name: &[u8], known: &[u8]) -> bool {
    const LOWER: u64 = u64::from_le_bytes([0x20; 8]);
    // Of what a name can have, this makes upper case lower and leaves all else that is compared with.
    let differs = |name: &[u8; 8], known: &[u8; 8]| (u64::from_le_bytes(*name) | LOWER) ^ u64::from_le_bytes(*known);
    match (name.last_chunk(), known.last_chunk()) {
        (Some(last), Some(known_last)) => {
            let words = name.as_chunks().0.iter().zip(known.as_chunks().0);
            words.fold(differs(last, known_last), |all, (name, known)| all | differs(name, known)) == 0
        }
        _ => match (name.first_chunk(), name.last_chunk(), known.first_chunk(), known.last_chunk()) {
            (Some(&[a, b, c, d]), Some(&[e, f, g, h]), Some(&[i, j, k, l]), Some(&[m, n, o, p])) => {
                differs(&[a, b, c, d, e, f, g, h], &[i, j, k, l, m, n, o, p]) == 0
            }
            _ => name.eq_ignore_ascii_case(known),
        },
    }
}

/// The first index of a pseudo-field's name; 0 if it is not there.
pub(crate) fn pseudo_name(name: &[u8]) -> u8 {
    match name {
        b":authority" => 1,
        b":method" => 2,
        b":path" => 4,
        b":scheme" => 6,
        b":status" => 8,
        _ => 0,
    }
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
            assert_eq!(number_of(name), found);
            assert_eq!(number_of(&name.to_ascii_uppercase()), found);
        }
        for (at, name) in OTHERS.iter().enumerate() {
            let number = (FIELDS.len() + 1 + at) as u8;
            assert_eq!(number_of(name), number);
            assert_eq!(number_of(&name.to_ascii_uppercase()), number);
        }
        for name in ["", "x", "x-request-ie", "accept-encodinh", "a-name-that-is-longer-than-any-of-them"] {
            assert_eq!(number_of(name.as_bytes()), 0, "{name}");
        }
        for index in 1..=FIELDS.len() as u8 {
            let name = FIELDS[usize::from(index) - 1].0;
            let first = static_entry(u32::from(index)).unwrap().static_name;
            assert_eq!(pseudo_name(name), if name[0] == b':' { first } else { 0 });
        }
        assert_eq!(static_entry(0), None);
        assert_eq!(static_entry(62), None);
    }

    #[test]
    fn a_table_holds_the_bytes_of_its_entries_and_a_slot_for_each() {
        let mut table = DynamicTable::new(4096);
        assert_eq!(table.memory_bytes(), 0);
        for _ in 0..40 {
            table.insert(entry(b"x-name", b"value", None));
        }
        table.shrink();
        let each = b"x-name: value\r\n".len() + size_of::<Slot>();
        assert_eq!(table.memory_bytes(), 40 * each);
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
