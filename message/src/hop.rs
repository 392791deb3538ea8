//! Fields that are for one hop only because the sender says so.

use crate::{FIELDS_CEILING, Field, FieldName, tokens};
use std::cmp::Ordering;

/// Options up to which each is looked for among all fields: nearly all clients send one or two.
const FEW: usize = 4;

/// Marks what `Connection` names (RFC 9110, 7.6.1): for this hop only, but for what frames and routes a message, which is not the
/// sender's to remove.
pub fn nominate(buffer: &[u8], fields: &mut [Field]) {
    nominate_counted(buffer, fields);
}

/// The same; tells how often an option was compared with a name.
fn nominate_counted(buffer: &[u8], fields: &mut [Field]) -> usize {
    let options = |fields: &[Field], index: usize| {
        let field = fields.get(index).filter(|field| field.kind == FieldName::Connection);
        field.map(|field| field.value)
    };
    let count: usize = (0..fields.len())
        .filter_map(|index| options(fields, index))
        .map(|value| memchr::memchr_iter(b',', value.of(buffer)).count() + 1)
        .sum();
    let mut compared = 0;
    // What is in use for few options would cost, with many, their number times that of the fields.
    let mut places = [0; FIELDS_CEILING];
    let sorted = if count > FEW { Sorted::new(buffer, fields, &mut places, &mut compared) } else { None };
    for index in 0..fields.len() {
        let Some(value) = options(fields, index) else { continue };
        for option in tokens(value.of(buffer)) {
            match &sorted {
                Some(sorted) => sorted.nominate(buffer, fields, option, &mut compared),
                None => {
                    for field in fields.iter_mut() {
                        compared += 1;
                        if field.kind.may_be_nominated() && field.name.of(buffer).eq_ignore_ascii_case(option) {
                            field.kind = FieldName::Nominated;
                        }
                    }
                }
            }
        }
    }
    compared
}

/// Fields in the order of their names, those that may be nominated.
struct Sorted<'p> {
    places: &'p mut [u16],
}

impl<'p> Sorted<'p> {
    /// `None`: there are more than a head has.
    fn new(buffer: &[u8], fields: &[Field], places: &'p mut [u16], compared: &mut usize) -> Option<Self> {
        let mut count = 0;
        for (index, _) in fields.iter().enumerate().filter(|(_, field)| field.kind.may_be_nominated()) {
            *places.get_mut(count)? = index as u16;
            count += 1;
        }
        let places = &mut places[..count];
        let name = |index: u16| fields[usize::from(index)].name.of(buffer);
        places.sort_unstable_by(|&one, &other| {
            *compared += 1;
            compare(name(one), name(other))
        });
        Some(Self { places })
    }

    /// Marks all fields of that name. Each is marked once only: its options are no more than its bytes.
    fn nominate(&self, buffer: &[u8], fields: &mut [Field], option: &[u8], compared: &mut usize) {
        let first = self.places.partition_point(|&index| {
            *compared += 1;
            compare(fields[usize::from(index)].name.of(buffer), option).is_lt()
        });
        for &index in &self.places[first..] {
            *compared += 1;
            let field = &mut fields[usize::from(index)];
            // The first of a name is marked along with all others.
            if field.kind == FieldName::Nominated || !field.name.of(buffer).eq_ignore_ascii_case(option) {
                break;
            }
            field.kind = FieldName::Nominated;
        }
    }
}

/// By their bytes, without regard to case.
fn compare(one: &[u8], other: &[u8]) -> Ordering {
    one.iter().map(u8::to_ascii_lowercase).cmp(other.iter().map(u8::to_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Span;
    use proptest::prelude::*;

    /// A head of these fields, and its bytes.
    fn head(lines: &[(&str, &str)]) -> (Vec<u8>, Vec<Field>) {
        let (mut buffer, mut fields) = (Vec::new(), Vec::new());
        let mut add = |text: &str| {
            let start = buffer.len() as u32;
            buffer.extend_from_slice(text.as_bytes());
            Span { start, end: buffer.len() as u32 }
        };
        for (name, value) in lines {
            let kind = FieldName::classify(name.as_bytes());
            fields.push(Field { name: add(name), value: add(value), kind, sensitive: false });
        }
        (buffer, fields)
    }

    #[test]
    fn what_frames_or_routes_is_not_the_senders_to_remove() {
        let (buffer, mut fields) = head(&[
            ("Host", "a"),
            ("Content-Length", "0"),
            ("X-A", "1"),
            ("Connection", "x-a,, CONTENT-LENGTH ,host, x-forwarded-for\t"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("Cookie", "a=b"),
            ("connection", "COOKIE"),
        ]);
        nominate(&buffer, &mut fields);
        let kinds: Vec<FieldName> = fields.iter().map(|field| field.kind).collect();
        let expected = [
            FieldName::Host,
            FieldName::ContentLength,
            FieldName::Nominated,
            FieldName::Connection,
            FieldName::XForwardedFor,
            FieldName::Nominated,
            FieldName::Connection,
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn few_options_are_compared_with_every_field_and_more_with_a_sorted_list() {
        let compared = |options: usize| {
            let names: Vec<String> = (0..200).map(|index| format!("x-{index}")).collect();
            let list = names[..options].join(",");
            let lines = names.iter().map(|name| (name.as_str(), "1")).chain([("Connection", list.as_str())]);
            let (buffer, mut fields) = head(&lines.collect::<Vec<_>>());
            let compared = nominate_counted(&buffer, &mut fields);
            assert_eq!(fields.iter().filter(|field| field.kind == FieldName::Nominated).count(), options);
            compared
        };
        assert_eq!([compared(1), compared(FEW)], [201, FEW * 201]);
        assert_ne!(compared(FEW + 1), (FEW + 1) * 201);
    }

    #[test]
    fn many_options_and_many_fields_cost_about_their_sum() {
        let many = |options: usize, fields: usize, option: fn(usize) -> String| {
            let names: Vec<String> = (0..fields).map(|index| format!("X-Field-{index}")).collect();
            let list: Vec<String> = (0..options).map(option).collect();
            let list = list.join(",");
            let connection = [("Connection", list.as_str())];
            let lines: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).chain(connection).collect();
            let (buffer, mut fields) = head(&lines);
            let compared = nominate_counted(&buffer, &mut fields);
            (compared, fields.iter().filter(|field| field.kind == FieldName::Nominated).count())
        };
        for (option, nominated) in [
            ((|index| format!("x-field-{index}")) as fn(usize) -> String, 100),
            (|index| format!("other-{index}"), 0),
            (|_| "x-field-7".to_owned(), 1),
            (|_| String::new(), 0),
        ] {
            let (compared, found) = many(100, 100, option);
            assert_eq!(found, nominated);
            // 100 times 100 would be 10,000.
            assert!(compared < 200 * 9, "{compared}");
            let (twice, _) = many(200, 100, option);
            assert!(twice < compared * 2, "{twice} {compared}");
            // What a search among them takes is counted: seven steps for each option that there is.
            let searched = if option(0).is_empty() { 0 } else { 100 * 6 };
            assert!(twice - compared >= searched, "{twice} {compared}");
        }
        // One name of all fields, asked for again and again.
        let lines: Vec<(&str, &str)> = std::iter::repeat_n(("X-A", "1"), 200).collect();
        let list = vec!["x-a"; 1000].join(",");
        let lines: Vec<(&str, &str)> = lines.into_iter().chain([("Connection", list.as_str())]).collect();
        let (buffer, mut fields) = head(&lines);
        assert!(nominate_counted(&buffer, &mut fields) < 1200 * 12);
        assert_eq!(fields.iter().filter(|field| field.kind == FieldName::Nominated).count(), 200);
    }

    proptest! {
        #[test]
        fn a_field_is_nominated_if_and_only_if_some_connection_names_it(
            names in prop::collection::vec(prop::sample::select(vec!["X-A", "x-b", "Te", "Cookie", "Host", "Trailer"]), 0..8),
            options in prop::collection::vec(prop::sample::select(vec!["x-a", "X-B", "te", "cookie", "host", "close", ""]), 0..12),
        ) {
            let list = options.join(" , ");
            let lines: Vec<(&str, &str)> = names.iter().map(|name| (*name, "1")).chain([("Connection", &*list)]).collect();
            let (buffer, mut fields) = head(&lines);
            nominate(&buffer, &mut fields);
            for (field, (name, _)) in fields.iter().zip(&lines) {
                let named = options.iter().any(|option| option.eq_ignore_ascii_case(name));
                let may = FieldName::classify(name.as_bytes()).may_be_nominated();
                prop_assert_eq!(field.kind == FieldName::Nominated, named && may, "{}", name);
            }
            let once = fields.clone();
            nominate(&buffer, &mut fields);
            prop_assert_eq!(once, fields);
        }
    }
}
