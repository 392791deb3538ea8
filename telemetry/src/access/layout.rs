//! Lines whose fields are chosen: a list of steps, made once; a line is written by following it.

use super::calendar::{push_clf, push_rfc3339};
use super::field::Field;
use super::value::{Value, push_json, push_quoted};

/// One value of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A field.
    Field(Field),
    /// A header field of the request, its name in lower case.
    Header(Box<[u8]>),
}

/// One step of a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Text(Box<[u8]>),
    /// A value.
    Value(Source),
}

/// The steps of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(Steps);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Steps {
    /// What stands before each value, and the value.
    Json(Vec<(Box<[u8]>, Source)>),
    Text(Vec<Step>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Text(Box<[u8]>),
    /// `spaces`: whether it may have some, as it stands in quotes. `end`: the byte that follows it, which it must not have.
    Value {
        source: Source,
        spaces: bool,
        end: Option<u8>,
    },
}

/// What a line with chosen fields may have beside those of every line.
#[derive(Debug, Clone, Copy)]
pub struct More<'v> {
    /// Fields.
    pub fields: [(Field, Value<'v>); 7],
    /// The request's head, as lines of text.
    pub head: &'v [u8],
}

impl Default for More<'_> {
    fn default() -> Self {
        Self { fields: [(Field::PEER, Value::Nothing); 7], head: &[] }
    }
}

impl Layout {
    /// A JSON object with these names.
    #[must_use]
    pub fn json(fields: impl IntoIterator<Item = (String, Source)>) -> Self {
        let mut separator = b'{';
        let field = |(name, source): (String, Source)| {
            let mut before = vec![separator];
            separator = b',';
            push_quoted(&mut before, name.as_bytes());
            before.push(b':');
            (before.into(), source)
        };
        Self(Steps::Json(fields.into_iter().map(field).collect()))
    }

    /// A line of text.
    #[must_use]
    pub fn text(parts: impl IntoIterator<Item = Part>) -> Self {
        let mut quoted = false;
        let mut parts = parts.into_iter().peekable();
        let mut steps = Vec::new();
        while let Some(part) = parts.next() {
            steps.push(match part {
                Part::Text(text) => {
                    quoted ^= text.iter().filter(|&&byte| byte == b'"').count() % 2 == 1;
                    Step::Text(text)
                }
                Part::Value(source) => {
                    let end = parts.peek().and_then(|next| match next {
                        Part::Text(text) => text.first().copied(),
                        Part::Value(_) => None,
                    });
                    Step::Value { source, spaces: quoted, end }
                }
            });
        }
        Self(Steps::Text(steps))
    }

    pub(super) fn write<'v>(
        &self,
        out: &mut Vec<u8>,
        fields: impl IntoIterator<Item = (Field, Value<'v>)>,
        head: &'v [u8],
    ) {
        let mut values = [Value::Nothing; Field::ALL.len()];
        for (field, value) in fields {
            if let Some(place) = values.get_mut(field.index) {
                *place = value;
            }
        }
        let line = Line { values, head };
        match &self.0 {
            Steps::Json(fields) => {
                for (before, source) in fields {
                    out.extend_from_slice(before);
                    match line.find(source) {
                        Found::Value(value) => push_json(out, value),
                        Found::Time(push, at) => {
                            out.push(b'"');
                            push(out, at);
                            out.push(b'"');
                        }
                    }
                }
                out.extend_from_slice(b"}\n");
            }
            Steps::Text(steps) => {
                for step in steps {
                    match step {
                        Step::Text(text) => out.extend_from_slice(text),
                        Step::Value { source, spaces, end } => match line.find(source) {
                            Found::Value(value) => push_text(out, value, *spaces, *end),
                            Found::Time(push, at) => push(out, at),
                        },
                    }
                }
                out.push(b'\n');
            }
        }
    }
}

/// A line's values, in the places of their fields.
struct Line<'v> {
    values: [Value<'v>; Field::ALL.len()],
    head: &'v [u8],
}

enum Found<'v> {
    Value(Value<'v>),
    Time(fn(&mut Vec<u8>, u64), u64),
}

impl<'v> Line<'v> {
    fn value(&self, field: Field) -> Value<'v> {
        self.values.get(field.index).copied().unwrap_or(Value::Nothing)
    }

    fn find(&self, source: &Source) -> Found<'v> {
        let field = match source {
            Source::Field(field) => *field,
            Source::Header(name) => return Found::Value(header(self.head, name).map_or(Value::Nothing, Value::Bytes)),
        };
        let at = if let Value::Number(at) = self.value(Field::TIME_MS) { at } else { 0 };
        let parts = || match self.value(Field::TARGET) {
            Value::Bytes(target) => {
                let mut parts = target.splitn(2, |&byte| byte == b'?');
                (parts.next(), parts.next())
            }
            _ => (None, None),
        };
        let bytes = |part: Option<&'v [u8]>| part.map_or(Value::Nothing, Value::Bytes);
        Found::Value(match field {
            Field::TIME => return Found::Time(push_rfc3339, at),
            Field::TIME_CLF => return Found::Time(push_clf, at),
            Field::PATH => bytes(parts().0),
            Field::QUERY => bytes(parts().1),
            field => self.value(field),
        })
    }
}

/// The value of the first header field of this name.
fn header<'h>(head: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).find_map(|line| {
        let (field, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":").filter(|_| field.eq_ignore_ascii_case(name))?;
        Some(value.trim_ascii())
    })
}

/// As nginx has it: what would end a value, or could not be seen, as `\xHH`; a value that is not there as `-`. `end`: the byte that ends
/// it, whatever it is.
fn push_text(out: &mut Vec<u8>, value: Value<'_>, spaces: bool, end: Option<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let bytes = match value {
        Value::Number(number) => return out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Value::Nothing | Value::Bytes([]) => return out.push(b'-'),
        Value::Word(word) => word.as_bytes(),
        Value::Bytes(bytes) => bytes,
    };
    for &byte in bytes {
        if matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f..) || byte == b' ' && !spaces || Some(byte) == end {
            let digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
            out.extend_from_slice(&[b'\\', b'x', digits[0], digits[1]]);
        } else {
            out.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: a.test\r\nUser-Agent:  a \"quoted\\ \x1b\xff agent\r\nx: \r\n\r\n";

    fn fields() -> [(Field, Value<'static>); 4] {
        [
            (Field::TIME_MS, Value::Number(971_211_336_042)),
            (Field::TARGET, Value::Bytes(b"/a?b?c")),
            (Field::STATUS, Value::Number(200)),
            (Field::SERVICE, Value::Word("my service")),
        ]
    }

    fn written(layout: &Layout) -> String {
        let mut out = Vec::new();
        layout.write(&mut out, fields(), HEAD);
        String::from_utf8(out).unwrap()
    }

    fn field(field: Field) -> Part {
        Part::Value(Source::Field(field))
    }

    fn name(name: &str) -> Source {
        Source::Header(name.as_bytes().into())
    }

    #[test]
    fn a_line_has_what_is_chosen_in_the_order_of_the_choice() {
        let chosen = [Field::STATUS, Field::TIME, Field::PATH, Field::QUERY, Field::BACKEND];
        let chosen = chosen.map(|field| (field.name().to_owned(), Source::Field(field)));
        let layout = Layout::json(chosen.into_iter().chain([("agent\"".to_owned(), name("user-agent"))]));
        let line = "{\"status\":200,\"time\":\"2000-10-10T20:55:36.042Z\",\"path\":\"/a\",\"query\":\"b?c\",\"backend\":null,\
                    \"agent\\\"\":\"a \\\"quoted\\\\ \\u001b\\u00ff agent\"}\n";
        assert_eq!(written(&layout), line);
    }

    #[test]
    fn a_value_ends_neither_its_line_nor_its_quotes_nor_its_field() {
        let text = |text: &str| Part::Text(text.as_bytes().into());
        let layout = Layout::text([
            field(Field::TIME_CLF),
            text(" "),
            field(Field::SERVICE),
            text(" \""),
            Part::Value(name("user-agent")),
            text("\" "),
            Part::Value(name("user-agent")),
            text(" "),
            Part::Value(name("x")),
            text(" "),
            field(Field::BACKEND),
        ]);
        assert_eq!(
            written(&layout),
            "10/Oct/2000:20:55:36 +0000 my\\x20service \"a \\x22quoted\\x5C \\x1B\\xFF agent\" \
             a\\x20\\x22quoted\\x5C\\x20\\x1B\\xFF\\x20agent - -\n"
        );
    }

    #[test]
    fn a_value_does_not_have_the_byte_that_ends_it() {
        let text = |text: &str| Part::Text(text.as_bytes().into());
        let agent = || Part::Value(name("user-agent"));
        let csv = Layout::text([field(Field::SERVICE), text(","), agent(), text(","), field(Field::STATUS)]);
        let fields = || [(Field::STATUS, Value::Number(404)), (Field::SERVICE, Value::Word("s"))];
        let write = |layout: &Layout, agent: &str| {
            let mut out = Vec::new();
            layout.write(&mut out, fields(), format!("GET / HTTP/1.1\r\nuser-agent: {agent}\r\n\r\n").as_bytes());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(write(&csv, "x,200"), "s,x\\x2C200,404\n");
        let words = Layout::text([text("[\""), agent(), text("::"), field(Field::STATUS), text("\"]")]);
        assert_eq!(write(&words, "a::200 b"), "[\"a\\x3A\\x3A200 b::404\"]\n");
        let in_quotes = Layout::text([text("\""), agent(), text(" "), field(Field::STATUS), text("\"")]);
        assert_eq!(write(&in_quotes, "a 200"), "\"a\\x20200 404\"\n");
    }

    #[test]
    fn a_header_is_found_by_its_whole_name_wherever_its_line_stands() {
        assert_eq!(header(HEAD, b"host"), Some(&b"a.test"[..]));
        assert_eq!(
            (header(HEAD, b"hos"), header(HEAD, b"ost"), header(HEAD, b"get /a?b http/1.1\r")),
            (None, None, None)
        );
        assert_eq!(
            (header(HEAD, b"x"), header(b"", b"x"), header(b"GET / HTTP/1.1\r\nx", b"x")),
            (Some(&b""[..]), None, None)
        );
    }

    #[test]
    fn each_field_has_a_place_of_its_own() {
        for (at, field) in Field::ALL.iter().enumerate() {
            assert_eq!((field.index, Field::named(field.name)), (at, Some(*field)));
        }
    }
}
