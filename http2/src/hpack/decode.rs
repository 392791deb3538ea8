//! The decoder: a connection's state of compression in one direction.

use super::table::{self, DynamicTable, Entry, FIELDS};
use super::{HpackError, huffman, integer};
use ringway_message::{FieldName, is_lower_token, is_value};

/// What a field counts besides its name and value.
const FIELD_OVERHEAD: usize = 32;
/// Room for decoded strings that is kept from block to block.
const SCRATCH_KEPT_BYTES: usize = 8 * 1024;
/// Size of a table before SETTINGS say another (RFC 9113, 6.5.2).
const TABLE_BYTES_INITIAL: u32 = 4096;

/// A field of a block, as its encoder means it; nothing in it has been judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodedField<'d> {
    /// Its name.
    pub name: &'d [u8],
    /// Its value.
    pub value: &'d [u8],
    /// It is never to be indexed, by anyone that it goes on to either (RFC 7541, 6.2.3).
    pub sensitive: bool,
    /// Where the static table has the name first; 0 if it is not there, or was spelled out and is no pseudo-field's.
    pub static_name: u8,
    /// What the name means.
    pub kind: FieldName,
    /// The value has bytes that values may have, and the name, if it is none of a pseudo-field, those of a lower-case token.
    pub well_formed: bool,
    /// `name: value` CR LF, if it lies so in memory.
    pub line: Option<&'d [u8]>,
}

impl<'d> DecodedField<'d> {
    fn judge(name: &'d [u8], value: &'d [u8], static_name: u8, sensitive: bool) -> Self {
        // A pseudo-field that is spelled out is looked for once, here: later blocks refer to what is remembered.
        let static_name = if name.first() == Some(&b':') { table::pseudo_name(name) } else { static_name };
        // Names of the static table are good ones, and those of pseudo-fields are known or not.
        let is_name = static_name != 0 || name.first() == Some(&b':') || is_lower_token(name);
        let (kind, well_formed) = (table::kind_of(static_name, name), is_name && is_value(value));
        Self { name, value, sensitive, static_name, kind, well_formed, line: None }
    }
}

/// What takes fields as they are decoded.
pub(crate) trait Sink {
    /// One out of a table.
    fn take(&mut self, field: DecodedField<'_>);
    /// One that has been spelled out.
    fn take_spelled(&mut self, field: &DecodedField<'_>);
}

/// Who does the same with each.
struct Each<F>(F);

impl<F: FnMut(DecodedField<'_>)> Sink for Each<F> {
    fn take(&mut self, field: DecodedField<'_>) {
        self.0(field);
    }

    fn take_spelled(&mut self, field: &DecodedField<'_>) {
        self.0(*field);
    }
}

/// Decodes blocks, all of a connection's in one direction and in their order.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
    /// The largest size that the peer may set.
    size_limit: u32,
    list_bytes_max: usize,
    /// The peer has said that it knows of a lower limit, and the next block has to begin with that.
    update_due: bool,
    /// Strings on their way out of the Huffman code, and a name that its own entry's place is needed for.
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    /// With the size of the table that our SETTINGS allow, once they are acknowledged. Until then a peer may use what holds without
    /// them: a smaller size is set by [`Self::handle_settings_acknowledged`] then.
    #[must_use]
    pub fn new(table_bytes_max: u32) -> Self {
        Self {
            table: DynamicTable::new(TABLE_BYTES_INITIAL),
            size_limit: table_bytes_max.max(TABLE_BYTES_INITIAL),
            list_bytes_max: usize::MAX,
            update_due: false,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Blocks that mean more than this, as RFC 9113, 6.5.2 counts it, are not decoded to their end: a few bytes can name the longest
    /// fields of the table again and again.
    pub fn set_list_bytes_max(&mut self, list_bytes_max: usize) {
        self.list_bytes_max = list_bytes_max;
    }

    /// The peer has acknowledged SETTINGS with this size of the table: it is the largest from now on. If the table in use is larger,
    /// the next block begins with a smaller one, or it is an error (RFC 9113, 4.3.1).
    pub fn handle_settings_acknowledged(&mut self, table_bytes_max: u32) {
        self.size_limit = table_bytes_max;
        self.update_due = self.table.size_max() > table_bytes_max;
    }

    /// Decodes a whole block; gives its fields one after the other.
    ///
    /// Costs no more than the block is long, with the names and values that it adds to the table: an entry that is referred to is given
    /// as it lies there, and never copied.
    ///
    /// # Errors
    /// The block does not follow RFC 7541, or means far more than any peer takes. Fields before that have been given already; the
    /// connection has to end.
    pub fn decode(&mut self, block: &[u8], sink: impl FnMut(DecodedField<'_>)) -> Result<(), HpackError> {
        self.decode_into(block, &mut Each(sink))
    }

    /// The same, into what tells fields apart by where they come from.
    pub(crate) fn decode_into(&mut self, block: &[u8], sink: &mut impl Sink) -> Result<(), HpackError> {
        let mut rest = block;
        let mut begun = false;
        let mut size = 0;
        while let Some(&first) = rest.first() {
            if size > self.list_bytes_max {
                return Err(HpackError::ListTooLong);
            }
            if first & 0x80 != 0 {
                if self.update_due {
                    return Err(HpackError::SizeUpdateMissing);
                }
                begun = true;
                let index = integer::decode(&mut rest, 7)?;
                let Entry { name, value, static_name, kind, well_formed, line } = find(&self.table, index)?;
                size += name.len() + value.len() + FIELD_OVERHEAD;
                sink.take(DecodedField { name, value, static_name, sensitive: false, kind, well_formed, line });
                continue;
            }
            if first & 0xe0 == 0x20 {
                let size = integer::decode(&mut rest, 5)?;
                self.update_size(size, begun)?;
                continue;
            }
            if self.update_due {
                return Err(HpackError::SizeUpdateMissing);
            }
            begun = true;
            let adds = first & 0x40 != 0;
            let index = integer::decode(&mut rest, if adds { 6 } else { 4 })?;
            let sensitive = first & 0x50 == 0x10;
            size += if adds {
                self.literal_added(&mut rest, index, sink)?
            } else {
                self.literal(&mut rest, index, sensitive, sink)?
            };
        }
        // A string of an unusual length is no reason to hold room for another, on each connection that had one.
        for scratch in [&mut self.name, &mut self.value] {
            if scratch.capacity() > SCRATCH_KEPT_BYTES {
                *scratch = Vec::new();
            }
        }
        Ok(())
    }

    fn update_size(&mut self, size: u32, begun: bool) -> Result<(), HpackError> {
        if begun {
            return Err(HpackError::SizeUpdatePlace);
        }
        if size > self.size_limit {
            return Err(HpackError::SizeUpdateLimit);
        }
        self.table.set_size_max(size);
        self.update_due = false;
        Ok(())
    }

    /// A field that is spelled out, all of it or its value, and not remembered. Gives what it counts.
    fn literal(
        &mut self,
        rest: &mut &[u8],
        index: u32,
        sensitive: bool,
        sink: &mut impl Sink,
    ) -> Result<usize, HpackError> {
        let (name, static_name) = match index {
            0 => (string(rest, &mut self.name)?, 0),
            index => {
                let Entry { name, static_name, .. } = find(&self.table, index)?;
                (name, static_name)
            }
        };
        let value = string(rest, &mut self.value)?;
        sink.take_spelled(&DecodedField::judge(name, value, static_name, sensitive));
        Ok(name.len() + value.len() + FIELD_OVERHEAD)
    }

    /// One that is remembered. Gives what it counts.
    fn literal_added(&mut self, rest: &mut &[u8], index: u32, sink: &mut impl Sink) -> Result<usize, HpackError> {
        let (name, static_name) = match index {
            0 => (string(rest, &mut self.name)?, 0),
            index => match table::static_entry(index) {
                Some(Entry { name, static_name, .. }) => (name, static_name),
                None => {
                    // The entry may have to leave for the new one (RFC 7541, 4.4).
                    let Entry { name, static_name, .. } = find(&self.table, index)?;
                    self.name.clear();
                    self.name.extend_from_slice(name);
                    (&self.name[..], static_name)
                }
            },
        };
        let value = string(rest, &mut self.value)?;
        let field = DecodedField::judge(name, value, static_name, false);
        sink.take_spelled(&field);
        let DecodedField { static_name, kind, well_formed, .. } = field;
        self.table.insert(Entry { name, value, static_name, kind, well_formed, line: None });
        Ok(name.len() + value.len() + FIELD_OVERHEAD)
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes() + self.name.capacity() + self.value.capacity()
    }

    /// Gives back what holds nothing that the peer may refer to.
    pub fn shrink(&mut self) {
        self.table.shrink();
        (self.name, self.value) = (Vec::new(), Vec::new());
    }
}

fn find(table: &DynamicTable, index: u32) -> Result<Entry<'_>, HpackError> {
    let known = FIELDS.len() as u32;
    match index.checked_sub(known + 1) {
        Some(dynamic) => table.get(dynamic),
        None => table::static_entry(index),
    }
    .ok_or(HpackError::Index)
}

/// Takes a string off the front: as it lies in the block, or decoded.
fn string<'o, 'b: 'o>(block: &mut &'b [u8], decoded: &'o mut Vec<u8>) -> Result<&'o [u8], HpackError> {
    let is_huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer::decode(block, 7)? as usize;
    let (string, rest) = block.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *block = rest;
    if !is_huffman {
        return Ok(string);
    }
    decoded.clear();
    huffman::decode(string, decoded)?;
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, HpackError> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut fields = Vec::new();
        decoder.decode(block, |field| fields.push((text(field.name), text(field.value))))?;
        Ok(fields)
    }

    /// A literal that is remembered.
    fn added(name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut block = vec![0x40];
        for part in [name, value] {
            integer::encode(&mut block, 0, 7, part.len());
            block.extend_from_slice(part);
        }
        block
    }

    #[test]
    fn indices_of_no_entry_are_errors_of_compression() {
        // 0, the first of an empty dynamic table, and far past both; in each form that has an index.
        for block in
            [&[0x80][..], &[0xbe], &[0xff, 0x80, 0x01], &[0x7e, 0x00], &[0x0f, 0x2f, 0x00], &[0x1f, 0x2f, 0x00]]
        {
            assert_eq!(decode(&mut Decoder::new(4096), block), Err(HpackError::Index), "{block:x?}");
        }
    }

    #[test]
    fn a_block_that_ends_within_a_field_is_an_error_wherever_it_ends() {
        let block = [&added(b"name", b"value")[..], &[0x0f, 0x2f, 0x03, b'a', b'b', b'c']].concat();
        let whole = decode(&mut Decoder::new(4096), &block).unwrap();
        assert_eq!(whole.len(), 2);
        let boundary = added(b"name", b"value").len();
        for end in 1..block.len() {
            let cut = decode(&mut Decoder::new(4096), &block[..end]);
            if end == boundary {
                assert_eq!(cut.unwrap().len(), 1);
            } else {
                assert_eq!(cut, Err(HpackError::Truncated), "{end}");
            }
        }
    }

    #[test]
    fn the_table_changes_its_size_at_a_block_s_start_only_and_within_the_limit() {
        let mut decoder = Decoder::new(4096);
        // To 0 and up again: both are allowed before the first field.
        assert_eq!(decode(&mut decoder, &[0x20, 0x3f, 0xe1, 0x1f, 0x82]).unwrap().len(), 1);
        assert_eq!(decode(&mut decoder, &[0x82, 0x20]), Err(HpackError::SizeUpdatePlace));
        assert_eq!(decode(&mut Decoder::new(4096), &[0x3f, 0xe2, 0x1f]), Err(HpackError::SizeUpdateLimit));
        assert_eq!(decode(&mut Decoder::new(4096), &[0x3f, 0xe1, 0x1f]), Ok(vec![]));
    }

    #[test]
    fn a_lowered_limit_is_honoured_from_its_acknowledgement_on() {
        let mut decoder = Decoder::new(0);
        let block = added(b"a", b"b");
        // Not acknowledged yet: what holds at a connection's start may be used.
        assert_eq!(decode(&mut decoder, &[&block[..], &[0xbe]].concat()).unwrap().len(), 2);
        decoder.handle_settings_acknowledged(0);
        assert_eq!(decode(&mut decoder, &[0xbe]), Err(HpackError::SizeUpdateMissing));
        let mut decoder = Decoder::new(0);
        decoder.handle_settings_acknowledged(0);
        assert_eq!(decode(&mut decoder, &[0x20, 0x82]).unwrap().len(), 1);
        assert_eq!(decode(&mut decoder, &[&block[..], &[0xbe]].concat()), Err(HpackError::Index));
        assert_eq!(decode(&mut decoder, &[0x21]), Err(HpackError::SizeUpdateLimit));
    }

    #[test]
    fn a_name_may_be_that_of_the_entry_that_leaves_for_it() {
        let mut decoder = Decoder::new(4096);
        let name = vec![b'n'; 2000];
        assert_eq!(decode(&mut decoder, &added(&name, &[b'v'; 2000])).unwrap().len(), 1);
        let mut block = vec![0x7e];
        integer::encode(&mut block, 0, 7, 1999);
        block.extend_from_slice(&[b'w'; 1999]);
        let expected = ("n".repeat(2000), "w".repeat(1999));
        assert_eq!(decode(&mut decoder, &block).unwrap(), std::slice::from_ref(&expected));
        assert_eq!(decode(&mut decoder, &[0xbe]).unwrap(), [expected]);
        assert_eq!(decode(&mut decoder, &[0xbf]), Err(HpackError::Index));
    }

    #[test]
    fn what_means_far_too_much_is_not_decoded_to_its_end_in_any_form() {
        let long = added(&[b'n'; 1900], &[b'v'; 1900]);
        // The entry itself; its name with no value, remembered and not.
        for form in [&[0xbe][..], &[0x7e, 0x00], &[0x0f, 0x2f, 0x00]] {
            let mut decoder = Decoder::new(4096);
            decoder.set_list_bytes_max(100_000);
            decode(&mut decoder, &long).unwrap();
            assert!(decode(&mut decoder, &form.repeat(20)).is_ok(), "{form:x?}");
            let mut count = 0;
            assert_eq!(decoder.decode(&form.repeat(10_000), |_| count += 1), Err(HpackError::ListTooLong));
            assert!(count <= 100_000 / 1932 + 1, "{count}");
        }
    }

    #[test]
    fn what_is_never_to_be_indexed_is_told_and_not_remembered() {
        let mut decoder = Decoder::new(4096);
        let mut told = Vec::new();
        let block = [0x10, 1, b'a', 1, b'b', 0x00, 1, b'a', 1, b'b', 0x40, 1, b'a', 1, b'b', 0x1f, 0x08, 1, b'c'];
        decoder.decode(&block, |field| told.push((field.sensitive, field.static_name))).unwrap();
        assert_eq!(told, [(true, 0), (false, 0), (false, 0), (true, 23)]);
        assert_eq!(decode(&mut decoder, &[0xbe]).unwrap(), [("a".into(), "b".into())]);
        assert_eq!(decode(&mut decoder, &[0xbf]), Err(HpackError::Index));
    }

    #[test]
    fn a_reference_to_a_large_entry_costs_neither_memory_nor_a_copy() {
        let mut decoder = Decoder::new(4096);
        decode(&mut decoder, &added(b"bomb", &[b'x'; 4000])).unwrap();
        let held = decoder.memory_bytes();
        let mut places = Vec::new();
        decoder.decode(&vec![0xbe; 10_000], |field| places.push(field.value.as_ptr() as usize)).unwrap();
        // All of them are the entry itself.
        assert_eq!(places.len(), 10_000);
        assert!(places.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(decoder.memory_bytes(), held);
    }

    #[test]
    fn room_for_a_string_of_unusual_length_is_given_back_with_its_block() {
        let mut decoder = Decoder::new(4096);
        // Zeros are five bits each: 100,000 of them for name and value.
        for first in [0x00, 0x40] {
            let mut block = vec![first];
            for _ in 0..2 {
                integer::encode(&mut block, 0x80, 7, 62_500);
                block.extend_from_slice(&[0; 62_500]);
            }
            let mut length = 0;
            decoder.decode(&block, |field| length = field.name.len() + field.value.len()).unwrap();
            assert_eq!(length, 200_000);
            assert!(decoder.memory_bytes() < 4096, "{}", decoder.memory_bytes());
        }
    }

    #[test]
    fn whatever_is_sent_the_table_stays_within_its_bound_and_is_given_back() {
        let mut decoder = Decoder::new(4096);
        for round in 0..2000_usize {
            let block = added(&vec![b'n'; round % 50], &vec![b'v'; round * 37 % 4000]);
            decode(&mut decoder, &block).unwrap();
            // The table, half as much again for what has left it, and 128 entries' places.
            assert!(decoder.memory_bytes() <= 6144 + 256 * 16, "{}", decoder.memory_bytes());
        }
        decode(&mut decoder, &[0x20]).unwrap();
        decoder.shrink();
        assert_eq!(decoder.memory_bytes(), 0);
    }
}
