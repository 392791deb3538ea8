use super::*;
use crate::hpack::{DecodedField, encode};
use ParseError::{
    FieldLine, HeadTooLarge, HostDisagrees, HostInvalid, HostMissing, HostRepeated, LengthInvalid, LengthRepeated,
    StartLine, Status, Target, TooManyFields, UnexpectedUpgrade,
};
use proptest::prelude::*;
use ringway_message::{FieldName, Span};

const RULES: RequestRules =
    RequestRules { limits: Limits { head_bytes_max: 32 * 1024, fields_max: 100 }, extended_connect: true };

/// A block in which every field is spelled out, pseudo-fields too.
fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        literal(&mut block, 0x00, name.as_ref(), value.as_ref());
    }
    block
}

fn literal(block: &mut Vec<u8>, first: u8, name: &[u8], value: &[u8]) {
    block.push(first);
    for part in [name, value] {
        match part.len() {
            length @ 0..127 => block.push(length as u8),
            length => block.extend([127, (length - 127) as u8 | 0x80, ((length - 127) >> 7) as u8]),
        }
        block.extend_from_slice(part);
    }
}

struct Parsed {
    head: RequestHead,
    arena: Vec<u8>,
}

impl Parsed {
    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(span.of(&self.arena)).unwrap()
    }

    fn fields(&self) -> Vec<(&str, &str)> {
        self.head.fields.iter().map(|field| (self.text(field.name), self.text(field.value))).collect()
    }
}

fn parse_with(rules: &RequestRules, fields: &[(&str, &str)], ends: bool) -> Result<Parsed, Fault> {
    let (mut head, mut arena) = (RequestHead::default(), Vec::new());
    request(&mut Decoder::new(4096), &block(fields), ends, rules, &mut head, &mut arena).unwrap()?;
    Ok(Parsed { head, arena })
}

fn parse(fields: &[(&str, &str)]) -> Result<Parsed, Fault> {
    parse_with(&RULES, fields, true)
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/x?y=1")];

fn get_with<'f>(more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    [&GET[..], more].concat()
}

fn response_of(fields: &[(&str, &str)], ends: bool, method: Method) -> Result<ResponseHead, Fault> {
    let (mut head, mut arena) = (ResponseHead::default(), Vec::new());
    response(&mut Decoder::new(4096), &block(fields), ends, &Limits::default(), method, &mut head, &mut arena)
        .unwrap()?;
    Ok(head)
}

#[test]
fn a_plain_request_is_taken_apart() {
    let parsed = parse(&get_with(&[("accept", "*/*"), ("te", "trailers"), ("expect", "100-continue")])).unwrap();
    let head = &parsed.head;
    assert_eq!((head.version, head.method, head.form), (Version::Http2, Method::Get, TargetForm::Origin));
    for (span, expected) in [
        (head.method_span, "GET"),
        (head.target, "/x?y=1"),
        (head.forward_target, "/x?y=1"),
        (head.path, "/x"),
        (head.query, "y=1"),
        (head.authority, "a.example"),
        (head.scheme, "https"),
    ] {
        assert_eq!(parsed.text(span), expected);
    }
    assert!(head.keep_alive && head.te_trailers && head.expect_continue && !head.expect_unknown);
    assert_eq!((head.body, head.upgrade, head.protocol), (BodyLength::None, None, None));
    assert_eq!(
        parsed.fields(),
        [("host", "a.example"), ("accept", "*/*"), ("te", "trailers"), ("expect", "100-continue")]
    );
}

#[test]
fn nothing_of_the_request_before_is_left_in_a_head_that_is_used_again() {
    let (mut decoder, mut head, mut arena) = (Decoder::new(4096), RequestHead::default(), Vec::new());
    let full = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/w?q"),
        (":authority", "a:1"),
        ("te", "trailers"),
        ("expect", "other"),
        ("cookie", "a"),
        ("cookie", "b"),
    ];
    let mut sensitive = Vec::new();
    for (name, value) in full {
        literal(&mut sensitive, 0x10, name.as_bytes(), value.as_bytes());
    }
    request(&mut decoder, &sensitive, false, &RULES, &mut head, &mut arena).unwrap().unwrap();
    assert!(head.target_sensitive && head.expect_unknown && head.te_trailers && head.protocol.is_some());
    request(&mut decoder, &block(&GET), true, &RULES, &mut head, &mut arena).unwrap().unwrap();
    let fresh = parse(&GET).unwrap();
    assert_eq!((head, arena), (fresh.head, fresh.arena));
}

#[test]
fn a_refused_head_tells_what_came_of_it_and_nothing_of_the_one_before() {
    let (mut decoder, mut head, mut arena) = (Decoder::new(4096), RequestHead::default(), Vec::new());
    let full =
        get_with(&[("te", "trailers"), ("expect", "100-continue"), ("content-length", "5"), ("cookie", "secret")]);
    let long = "x".repeat(3000);
    let limits = RequestRules { limits: Limits { head_bytes_max: 1000, fields_max: 100 }, ..RULES };
    for (fields, method, path, authority) in [
        (
            vec![(":method", "PUT"), (":path", "/p?q"), (":scheme", "http"), (":authority", "b"), ("a", &long)],
            "PUT",
            "/p",
            "b",
        ),
        (vec![(":method", "P T"), (":path", "p q"), ("x", "\n")], "", "", ""),
        (vec![(":path", &long)], "", "", ""),
        (vec![(":method", "PUT"), (":scheme", "http"), (":path", "/"), (":authority", "u@a")], "PUT", "/", ""),
        (vec![], "", "", ""),
    ] {
        request(&mut decoder, &block(&full), false, &limits, &mut head, &mut arena).unwrap().unwrap();
        request(&mut decoder, &block(&fields), true, &limits, &mut head, &mut arena).unwrap().unwrap_err();
        let text = |span: Span| std::str::from_utf8(span.of(&arena)).unwrap();
        assert_eq!((text(head.method_span), text(head.path), text(head.authority)), (method, path, authority));
        assert!(!head.te_trailers && !head.expect_continue && head.protocol.is_none());
        assert_eq!((head.body, head.version), (BodyLength::None, Version::Http2));
        assert!(head.fields.iter().all(|field| field.kind == FieldName::Host));
    }
    let (mut head, mut fresh) = (ResponseHead::default(), ResponseHead::default());
    let limits = Limits::default();
    let good = block(&[(":status", "304"), ("content-length", "5")]);
    response(&mut decoder, &good, true, &limits, Method::Get, &mut head, &mut arena).unwrap().unwrap();
    for head in [&mut head, &mut fresh] {
        response(&mut decoder, &block(&[("a", "b")]), true, &limits, Method::Get, head, &mut arena)
            .unwrap()
            .unwrap_err();
    }
    assert_eq!(head, fresh);
}

#[test]
fn the_body_ends_where_head_and_stream_say() {
    let body = |more: &[(&str, &str)], ends| parse_with(&RULES, &get_with(more), ends).map(|parsed| parsed.head.body);
    assert_eq!(body(&[], true), Ok(BodyLength::None));
    assert_eq!(body(&[], false), Ok(BodyLength::Chunked));
    assert_eq!(body(&[("content-length", "5")], false), Ok(BodyLength::Sized(5)));
    assert_eq!(body(&[("content-length", "0")], false), Ok(BodyLength::Sized(0)));
    assert_eq!(body(&[("content-length", "0")], true), Ok(BodyLength::Sized(0)));
    assert_eq!(body(&[("content-length", "5")], true), Err(Fault::Malformed(LengthInvalid)));
}

#[test]
fn crumbs_of_cookies_are_one_field_however_they_are_strewn() {
    let parsed =
        parse(&get_with(&[("a", "1"), ("cookie", "x=1"), ("b", "2"), ("cookie", "y=2"), ("cookie", "z=3; w")]))
            .unwrap();
    assert_eq!(parsed.fields(), [("host", "a.example"), ("a", "1"), ("b", "2"), ("cookie", "x=1; y=2; z=3; w")]);
    let mut secret = block(&get_with(&[("cookie", "x=1")]));
    literal(&mut secret, 0x10, b"cookie", b"s=2");
    let (mut head, mut arena) = (RequestHead::default(), Vec::new());
    request(&mut Decoder::new(4096), &secret, true, &RULES, &mut head, &mut arena).unwrap().unwrap();
    assert!(head.fields[1].sensitive, "what one of them asked for holds for all");
}

#[test]
fn many_crumbs_are_no_more_than_one_field() {
    let crumbs: Vec<_> = (0..300).map(|_| ("cookie", "a=b")).collect();
    assert_eq!(parse(&get_with(&crumbs)).unwrap().head.fields.len(), 2);
    let crumbs: Vec<_> = (0..1000).map(|_| ("cookie", "a=b")).collect();
    assert_eq!(parse(&get_with(&crumbs)).err(), Some(Fault::TooLarge(HeadTooLarge)));
}

#[test]
fn malformed_requests_are_errors_of_their_stream() {
    let malformed = |fields: &[(&str, &str)], error: ParseError| {
        assert_eq!(parse(fields).err(), Some(Fault::Malformed(error)), "{fields:?}");
    };
    // Pseudo-fields: all that are needed, once each, before all others, none of a response's, none unknown.
    for missing in [":method", ":scheme", ":path"] {
        let rest: Vec<_> = GET.into_iter().filter(|(name, _)| *name != missing).collect();
        malformed(&rest, StartLine);
    }
    for repeated in GET {
        malformed(&[&GET[..], &[repeated]].concat(), StartLine);
        let late: Vec<_> = GET.into_iter().filter(|field| *field != repeated).chain([("a", "b"), repeated]).collect();
        malformed(&late, StartLine);
    }
    for name in [":status", ":protocol", ":", ":host", ":Method", "::path", ":path "] {
        malformed(&[&[(name, "200")], &GET[..]].concat(), StartLine);
        malformed(&get_with(&[(name, "200")]), StartLine);
    }
    for method in ["", "G T", "GET\t", "G:T"] {
        let mut fields = GET;
        fields[0].1 = method;
        let error = if method.ends_with('\t') { FieldLine } else { StartLine };
        malformed(&fields, error);
    }
    for scheme in ["", "1x", "ht tp", "http:", "h\u{e9}"] {
        let mut fields = GET;
        fields[1].1 = scheme;
        malformed(&fields, StartLine);
    }
    for path in ["", "x", "*", "?x", "/a b", "/a#b", "/\u{e9}", "http://a.example/", "//\u{7f}"] {
        let mut fields = GET;
        fields[3].1 = path;
        let error = if path.contains('\u{7f}') { FieldLine } else { Target };
        malformed(&fields, error);
    }
    // Names and values.
    for name in ["", "A", "x-A", "a b", "a:", "a\0", "a\n", "a\r", "\u{e9}", "a,b", "(a)", "\"a\"", "a\u{7f}"] {
        malformed(&get_with(&[(name, "x")]), FieldLine);
    }
    for value in ["a\nb", "a\rb", "a\0b", "\n", " a", "a ", "\ta", "a\t", "a\u{1}", "a\u{7f}", "a\r\nb: c"] {
        malformed(&get_with(&[("x", value)]), FieldLine);
        for pseudo in 0..4 {
            let mut fields = GET;
            fields[pseudo].1 = value;
            malformed(&fields, FieldLine);
        }
    }
    // What belongs to one connection.
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        malformed(&get_with(&[(name, "x")]), FieldLine);
    }
    for value in ["gzip", "trailers, deflate", "trailers;q=0.5", ""] {
        malformed(&get_with(&[("te", value)]), FieldLine);
    }
    // Lengths and hosts that two parties could read differently.
    malformed(&get_with(&[("content-length", "0"), ("content-length", "0")]), LengthRepeated);
    malformed(&get_with(&[("content-length", "0, 0")]), LengthRepeated);
    for length in ["", "-1", "+1", "0x1", "1 2", "18446744073709551616"] {
        malformed(&get_with(&[("content-length", length)]), LengthInvalid);
    }
    malformed(&get_with(&[("host", "b.example")]), HostDisagrees);
    malformed(&get_with(&[("host", "a.example:80")]), HostDisagrees);
    malformed(&get_with(&[("host", "")]), HostDisagrees);
    malformed(&get_with(&[("host", "a.example"), ("host", "a.example")]), HostRepeated);
}

#[test]
fn host_and_authority_are_one_name() {
    for host in ["a.example", "A.EXAMPLE", "a.example.", "a.example:443", "a.example:0443"] {
        let parsed = parse(&get_with(&[("a", "b"), ("host", host)])).unwrap();
        assert_eq!(parsed.fields(), [("host", "a.example"), ("a", "b")], "{host}");
    }
    let without = |more: &[(&'static str, &'static str)]| {
        let rest: Vec<_> =
            GET.into_iter().filter(|(name, _)| *name != ":authority").chain(more.iter().copied()).collect();
        parse(&rest)
    };
    let parsed = without(&[("a", "b"), ("host", "c.example:8080")]).unwrap();
    assert_eq!(parsed.text(parsed.head.authority), "c.example:8080");
    assert_eq!(parsed.fields(), [("a", "b"), ("host", "c.example:8080")]);
    // As in HTTP/1.1: who is meant is not known.
    assert_eq!(without(&[]).err(), Some(Fault::Refused(HostMissing)));
    for host in ["", "a,b", "u@a", "a b", "[::1", "a:b"] {
        assert_eq!(without(&[("host", host)]).err(), Some(Fault::Refused(HostInvalid)), "{host}");
        let mut fields = GET;
        fields[2].1 = host;
        assert_eq!(parse(&fields).err(), Some(Fault::Refused(HostInvalid)), "{host}");
    }
}

#[test]
fn the_asterisk_is_for_options_alone() {
    let fields = [(":method", "OPTIONS"), (":scheme", "http"), (":authority", "a"), (":path", "*")];
    let parsed = parse(&fields).unwrap();
    assert_eq!((parsed.head.form, parsed.text(parsed.head.forward_target)), (TargetForm::Asterisk, "*"));
    assert!(parsed.head.query.is_empty());
}

#[test]
fn connect_names_an_authority_with_a_port_and_nothing_else() {
    let connect = [(":method", "CONNECT"), (":authority", "a.example:443")];
    let parsed = parse_with(&RULES, &connect, false).unwrap();
    assert_eq!((parsed.head.form, parsed.head.body), (TargetForm::Authority, BodyLength::Chunked));
    assert_eq!(parsed.text(parsed.head.target), "a.example:443");
    assert!(parsed.head.scheme.is_empty() && parsed.head.query.is_empty());
    for (more, error) in
        [((":path", "/"), StartLine), ((":scheme", "http"), StartLine), (("content-length", "1"), LengthInvalid)]
    {
        assert_eq!(
            parse_with(&RULES, &[&connect[..], &[more]].concat(), false).err(),
            Some(Fault::Malformed(error)),
            "{more:?}"
        );
    }
    assert_eq!(parse(&connect[..1]).err(), Some(Fault::Malformed(StartLine)));
    for authority in ["a.example", "a.example:", "a:0", "a:70000", "[::1]", "u@a:80", ""] {
        let fields = [(":method", "CONNECT"), (":authority", authority)];
        assert_eq!(parse(&fields).err(), Some(Fault::Malformed(Target)), "{authority}");
    }
}

#[test]
fn an_extended_connect_has_a_target_and_is_taken_where_it_was_offered() {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat?x"),
        (":authority", "a.example"),
    ];
    let parsed = parse_with(&RULES, &fields, false).unwrap();
    assert_eq!((parsed.head.method, parsed.head.form), (Method::Connect, TargetForm::Origin));
    assert_eq!(parsed.text(parsed.head.protocol.unwrap()), "websocket");
    assert_eq!((parsed.text(parsed.head.path), parsed.text(parsed.head.query)), ("/chat", "x"));
    assert_eq!(parsed.head.body, BodyLength::Chunked);
    let plain = RequestRules { extended_connect: false, ..RULES };
    assert_eq!(parse_with(&plain, &fields, false).err(), Some(Fault::Malformed(StartLine)));
    for missing in [":scheme", ":path"] {
        let rest: Vec<_> = fields.into_iter().filter(|(name, _)| *name != missing).collect();
        assert_eq!(parse(&rest).err(), Some(Fault::Malformed(StartLine)), "{missing}");
    }
    for protocol in ["", "web socket", "a/", "a/b/c"] {
        let mut fields = fields;
        fields[1].1 = protocol;
        assert_eq!(parse(&fields).err(), Some(Fault::Malformed(StartLine)), "{protocol}");
    }
    // On any other method it is none.
    assert_eq!(parse(&[&[(":protocol", "websocket")], &GET[..]].concat()).err(), Some(Fault::Malformed(StartLine)));
}

#[test]
fn responses_have_a_status_and_a_body_as_the_rfc_says() {
    let body = |fields: &[(&str, &str)], ends, method| response_of(fields, ends, method).map(|head| head.body);
    let sized = [(":status", "200"), ("content-length", "5")];
    assert_eq!(body(&sized, false, Method::Get), Ok(BodyLength::Sized(5)));
    assert_eq!(body(&sized, true, Method::Get), Err(Fault::Malformed(LengthInvalid)));
    let head = response_of(&sized, true, Method::Head).unwrap();
    assert_eq!((head.body, head.announced_length), (BodyLength::None, Some(5)));
    assert_eq!(body(&sized, false, Method::Connect), Ok(BodyLength::Chunked));
    assert_eq!(body(&[(":status", "200")], false, Method::Get), Ok(BodyLength::Chunked));
    assert_eq!(body(&[(":status", "200")], true, Method::Get), Ok(BodyLength::Sized(0)));
    assert_eq!(body(&[(":status", "204"), ("content-length", "5")], true, Method::Get), Ok(BodyLength::None));
    let head = response_of(&[(":status", "304"), ("content-length", "5")], true, Method::Get).unwrap();
    assert_eq!((head.body, head.announced_length), (BodyLength::None, Some(5)));
    let head = response_of(&[(":status", "103"), ("link", "</x>")], false, Method::Get).unwrap();
    assert!(head.is_informational() && head.body == BodyLength::None && head.status == 103);
}

#[test]
fn malformed_responses_are_errors_of_their_stream() {
    for status in ["", "20", "2000", "099", "600", "2 0", "abc", "+20"] {
        assert_eq!(response_of(&[(":status", status)], true, Method::Get), Err(Fault::Malformed(Status)), "{status}");
    }
    for (fields, ends, error) in [
        (&[][..], true, StartLine),
        (&[("a", "b")], true, StartLine),
        (&[(":status", "200"), (":status", "200")], true, StartLine),
        (&[("a", "b"), (":status", "200")], true, StartLine),
        (&[(":status", "200"), (":path", "/")], true, StartLine),
        (&[(":status", "101")], false, UnexpectedUpgrade),
        (&[(":status", "100")], true, StartLine),
        (&[(":status", "103"), ("content-length", "1")], false, LengthInvalid),
        (&[(":status", "200"), ("connection", "close")], true, FieldLine),
        (&[(":status", "200"), ("transfer-encoding", "chunked")], true, FieldLine),
        (&[(":status", "200"), ("x", "a\nb")], true, FieldLine),
        (&[(":status", "200"), ("X", "a")], true, FieldLine),
    ] {
        assert_eq!(response_of(fields, ends, Method::Get), Err(Fault::Malformed(error)), "{fields:?}");
    }
}

#[test]
fn trailers_have_no_pseudo_fields_and_nothing_that_frames_or_routes() {
    let parse = |list: &[(&str, &str)]| {
        let (mut fields, mut arena) = (Vec::new(), Vec::new());
        trailers(&mut Decoder::new(4096), &block(list), &Limits::default(), &mut fields, &mut arena).unwrap()?;
        let text = |span: Span| String::from_utf8(span.of(&arena).to_vec()).unwrap();
        Ok(fields.iter().map(|field| (text(field.name), text(field.value))).collect::<Vec<_>>())
    };
    let kept =
        parse(&[("grpc-status", "0"), ("host", "x"), ("content-length", "9"), ("x-forwarded-for", "1"), ("b", "")]);
    assert_eq!(kept, Ok(vec![("grpc-status".into(), "0".into()), ("b".into(), String::new())]));
    for bad in [
        (":method", "GET"),
        (":status", "200"),
        (":path", "/"),
        ("connection", "x"),
        ("A", "b"),
        ("a", "\n"),
        ("te", "x"),
    ] {
        let error = if bad.0.starts_with(':') { StartLine } else { FieldLine };
        assert_eq!(parse(&[("a", "b"), bad]), Err(Fault::Malformed(error)), "{bad:?}");
    }
}

#[test]
fn limits_hold_at_their_edge() {
    let limits = |head_bytes_max, fields_max| RequestRules { limits: Limits { head_bytes_max, fields_max }, ..RULES };
    let fields = get_with(&[("a", "1"), ("b", "2")]);
    let size: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    assert!(parse_with(&limits(size, 2), &fields, true).is_ok());
    assert_eq!(parse_with(&limits(size - 1, 2), &fields, true).err(), Some(Fault::TooLarge(HeadTooLarge)));
    assert_eq!(parse_with(&limits(size, 1), &fields, true).err(), Some(Fault::TooLarge(TooManyFields)));
    assert!(Fault::TooLarge(HeadTooLarge).error().is_size());
    let (mut fields, mut arena) = (Vec::new(), Vec::new());
    let long = block(&[("a", "x".repeat(200))]);
    let limits = Limits { head_bytes_max: 100, fields_max: 10 };
    let judged = trailers(&mut Decoder::new(4096), &long, &limits, &mut fields, &mut arena).unwrap();
    assert_eq!(judged, Err(Fault::TooLarge(HeadTooLarge)));
}

#[test]
fn whatever_is_wrong_with_a_head_the_next_one_is_understood() {
    for wrong in [("connection", "x"), ("x", "a\nb"), (":late", "x"), ("X", "y"), ("long", &"x".repeat(4000))] {
        let mut decoder = Decoder::new(4096);
        let rules = RequestRules { limits: Limits { head_bytes_max: 1000, fields_max: 100 }, ..RULES };
        let (mut head, mut arena) = (RequestHead::default(), Vec::new());
        let mut first = block(&[&GET[..], &[wrong]].concat());
        // Remembered after what is wrong.
        literal(&mut first, 0x40, b"x-later", b"remembered");
        let judged = request(&mut decoder, &first, true, &rules, &mut head, &mut arena).unwrap();
        assert!(judged.is_err(), "{wrong:?}");
        let second = [&block(&GET)[..], &[0xbe]].concat();
        request(&mut decoder, &second, true, &rules, &mut head, &mut arena).unwrap().unwrap();
        assert_eq!(head.value_of(&arena, b"x-later"), Some(&b"remembered"[..]), "{wrong:?}");
    }
}

#[test]
fn a_bomb_costs_no_more_memory_than_the_limit() {
    let mut decoder = Decoder::new(4096);
    let (mut head, mut arena) = (RequestHead::default(), Vec::new());
    let mut first = block(&GET);
    literal(&mut first, 0x40, b"bomb", &[b'x'; 4000]);
    request(&mut decoder, &first, true, &RULES, &mut head, &mut arena).unwrap().unwrap();
    let bomb = [&block(&GET)[..], &[0xbe; 10_000]].concat();
    let judged = request(&mut decoder, &bomb, true, &RULES, &mut head, &mut arena).unwrap();
    assert_eq!(judged, Err(Fault::TooLarge(HeadTooLarge)));
    assert!(arena.capacity() <= 64 * 1024, "{}", arena.capacity());
    assert!(head.fields.capacity() <= 256, "{}", head.fields.capacity());
    // Of fields that are nothing but their overhead.
    let mut empty = block(&GET);
    (0..10_000).for_each(|_| empty.extend([0x00, 0x01, b'a', 0x00]));
    let judged = request(&mut decoder, &empty, true, &RULES, &mut head, &mut arena).unwrap();
    assert_eq!(judged, Err(Fault::TooLarge(TooManyFields)));
    let crumbs = [&block(&GET)[..], &[0x60, 0x00].repeat(10_000)].concat();
    let judged = request(&mut decoder, &crumbs, true, &RULES, &mut head, &mut arena).unwrap();
    assert_eq!(judged, Err(Fault::TooLarge(HeadTooLarge)));
    assert!(head.fields.capacity() <= 2048, "{}", head.fields.capacity());
}

#[test]
fn what_is_never_to_be_indexed_is_passed_on_as_that() {
    let mut block = block(&GET[..3]);
    literal(&mut block, 0x10, b":path", b"/secret");
    literal(&mut block, 0x10, b"x-token", b"t");
    let (mut head, mut arena) = (RequestHead::default(), Vec::new());
    request(&mut Decoder::new(4096), &block, true, &RULES, &mut head, &mut arena).unwrap().unwrap();
    assert!(head.target_sensitive);
    let sensitive: Vec<_> = head.fields.iter().map(|field| field.sensitive).collect();
    assert_eq!(sensitive, [true, true]);
    let mut out = Vec::new();
    encode::path(&mut out, head.path.of(&arena), head.target_sensitive);
    assert_eq!(out[0] & 0xf0, 0x10);
}

#[test]
fn names_of_the_static_table_mean_what_they_mean_spelled_out() {
    for index in 1..=61_u8 {
        Decoder::new(4096)
            .decode(&[0x80 | index], |field| {
                let spelled = DecodedField { static_name: 0, ..field };
                assert!(field.static_name > 0);
                assert_eq!(field.kind, FieldName::classify(field.name), "{index}");
                assert_eq!(Pseudo::of(&field), Pseudo::of(&spelled), "{index}");
                if field.name[0] != b':' {
                    assert!(ringway_message::is_lower_token(field.name));
                }
            })
            .unwrap();
    }
}

#[test]
fn fields_out_of_the_table_are_judged_as_when_they_were_spelled_out() {
    // Each field twice: spelled out and remembered, then by its index; in a head of its own.
    for (name, value) in [
        (":path", "/a#b"),
        (":path", "/good?x"),
        (":path", "*"),
        (":authority", "u@a"),
        (":authority", "a.example:80"),
        ("a", "b"),
        ("a", " b"),
        ("A", "b"),
        ("te", "trailers"),
        ("te", "gzip"),
        ("connection", "x"),
        ("host", "a.example"),
        ("host", "b.example"),
        ("cookie", "a=b"),
        ("content-length", "0"),
        ("content-length", "x"),
        (":late", "x"),
        (":status", "200"),
    ] {
        let others: Vec<_> = GET.into_iter().filter(|field| field.0 != name).collect();
        let (pseudo, mut one, mut two) = (name.starts_with(':'), Vec::new(), Vec::new());
        for block in [&mut one, &mut two] {
            if !pseudo {
                block.extend(self::block(&others));
            }
        }
        literal(&mut one, 0x40, name.as_bytes(), value.as_bytes());
        two.push(0xbe);
        for block in [&mut one, &mut two] {
            if pseudo {
                block.extend(self::block(&others));
            }
        }
        let mut decoder = Decoder::new(4096);
        let mut parse = |block: &[u8]| {
            let (mut head, mut arena) = (RequestHead::default(), Vec::new());
            let judged = request(&mut decoder, block, true, &RULES, &mut head, &mut arena).unwrap();
            judged.map(|()| (head, arena))
        };
        let (spelled, indexed) = (parse(&one), parse(&two));
        assert_eq!(spelled, indexed, "{name}: {value}");
    }
}

/// Fields are lines that follow each other without gaps, to the end.
fn assert_lines(fields: &[Field], arena: &[u8]) {
    let Some(first) = fields.first() else { return };
    let mut at = first.name.start as usize;
    for field in fields {
        let line = [field.name.of(arena), b": ", field.value.of(arena), b"\r\n"].concat();
        assert_eq!(arena[at..].get(..line.len()), Some(&line[..]));
        assert_eq!((field.name.start as usize, field.value.end as usize), (at, at + line.len() - 2));
        at += line.len();
    }
    assert_eq!(at, arena.len());
}

proptest! {
    #[test]
    fn fields_are_lines_without_gaps_whatever_is_joined_or_left_out(
        names in prop::collection::vec(
            prop::sample::select(vec!["cookie", "cookie", "a", "host", "te", "content-length", "x-forwarded-for"]), 0..12),
        has_authority: bool,
    ) {
        let mut list: Vec<(String, String)> = vec![(":method".into(), "POST".into()), (":scheme".into(), "http".into())];
        if has_authority {
            list.push((":authority".into(), "h".into()));
        }
        list.push((":path".into(), "/".into()));
        let mut crumbs = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let value = match *name {
                "host" => "h".to_owned(),
                "te" => "trailers".into(),
                "content-length" => "7".into(),
                "cookie" => {
                    crumbs.push(format!("c{index}=v"));
                    format!("c{index}=v")
                }
                _ => format!("v{index}"),
            };
            list.push(((*name).into(), value));
        }
        let (mut head, mut arena) = (RequestHead::default(), Vec::new());
        let judged = request(&mut Decoder::new(4096), &block(&list), false, &RULES, &mut head, &mut arena).unwrap();
        if judged.is_ok() {
            assert_lines(&head.fields, &arena);
            prop_assert_eq!(head.authority.of(&arena), b"h");
            let cookies: Vec<_> = head.values_of(&arena, b"cookie").collect();
            let expected = crumbs.join("; ").into_bytes();
            prop_assert_eq!(cookies, if crumbs.is_empty() { vec![] } else { vec![&expected[..]] });
        }
        let (mut fields, mut arena) = (Vec::new(), Vec::new());
        let rest: Vec<_> = list.iter().filter(|(name, _)| !name.starts_with(':')).collect();
        let rest: Vec<_> = rest.into_iter().map(|(name, value)| (name, value)).collect();
        if let Ok(()) = trailers(&mut Decoder::new(4096), &block(&rest), &RULES.limits, &mut fields, &mut arena).unwrap() {
            assert_lines(&fields, &arena);
        }
    }
}

/// The same request as HTTP/1.1 text.
fn as_text(method: &str, path: &str, host: &str, fields: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    (text + "\r\n").into_bytes()
}

proptest! {
    #[test]
    fn a_request_is_the_same_one_in_either_version(
        method in prop_oneof![Just("GET"), Just("POST"), Just("OPTIONS"), Just("PURGE"), Just("G ET")],
        path in prop_oneof!["/[a-z?%=&#/ .~é\u{7f}]{0,12}", Just("*".to_owned()), "[a-z]{0,3}"],
        host in prop_oneof!["[a-zA-Z0-9.:_@,\\[\\]-]{1,12}", Just("a.example".to_owned())],
        fields in prop::collection::vec(
            (
                prop_oneof!["[a-z!#$%_.-]{1,12}", Just("x-forwarded-for".to_owned()), Just("content-length".to_owned()),
                    Just("expect".to_owned()), Just("x_forwarded_for".to_owned())],
                prop_oneof!["[ -~\t]{0,20}", "[0-9]{1,3}", Just("100-continue".to_owned()), "[\\x00-\\x7f]{0,3}"],
            ),
            0..6,
        ),
    ) {
        // White space around a value is not of it in text; a line's end in it is two lines.
        prop_assume!(fields.iter().all(|(_, value)| value.trim_matches([' ', '\t']) == value && !value.contains(['\r', '\n'])));
        let text = as_text(method, &path, &host, &fields);
        let mut one = RequestHead::default();
        let in_text = ringway_http1::parse_request(&text, &RULES.limits, &mut one);
        let mut list: Vec<(&str, &str)> =
            vec![(":method", method), (":scheme", "http"), (":authority", &host), (":path", &path)];
        list.extend(fields.iter().map(|(name, value)| (&name[..], &value[..])));
        match (in_text, parse_with(&RULES, &list, false)) {
            (Ok(true), Ok(parsed)) => {
                let two = &parsed.head;
                for (one, two) in [
                    (one.method_span, two.method_span),
                    (one.target, two.target),
                    (one.forward_target, two.forward_target),
                    (one.path, two.path),
                    (one.query, two.query),
                    (one.authority, two.authority),
                ] {
                    prop_assert_eq!(one.of(&text), two.of(&parsed.arena));
                }
                prop_assert_eq!((one.method, one.form), (two.method, two.form));
                prop_assert_eq!((one.expect_continue, one.expect_unknown), (two.expect_continue, two.expect_unknown));
                let list = |head: &RequestHead, bytes: &[u8]| {
                    head.fields
                        .iter()
                        .map(|field| {
                            let name = field.name.of(bytes).to_ascii_lowercase();
                            (name, field.value.of(bytes).to_vec(), field.kind)
                        })
                        .collect::<Vec<_>>()
                };
                prop_assert_eq!(list(&one, &text), list(two, &parsed.arena));
            }
            (Err(one), Err(two)) => {
                // Which of several things is wrong is named by the order in which they are looked at.
                let _ = (one, two);
            }
            (one, two) => prop_assert!(false, "{:?} in text, {:?} in a block", one, two.map(|_| ())),
        }
    }

    #[test]
    fn any_block_is_either_a_head_within_the_limits_or_an_error(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80_u8..0xbf, Just(0x41), Just(0x44)], 0..200), ends in any::<bool>()
    ) {
        let (mut head, mut arena) = (RequestHead::default(), Vec::new());
        if let Ok(Ok(())) = request(&mut Decoder::new(4096), &bytes, ends, &RULES, &mut head, &mut arena) {
            prop_assert!(head.fields.iter().filter(|field| field.kind == FieldName::Host).count() == 1);
            assert_lines(&head.fields, &arena);
            for field in &head.fields {
                prop_assert!(ringway_message::is_lower_token(field.name.of(&arena)));
                prop_assert!(ringway_message::is_value(field.value.of(&arena)));
            }
        }
        let mut answer = ResponseHead::default();
        if let Ok(Ok(())) =
            response(&mut Decoder::new(4096), &bytes, ends, &RULES.limits, Method::Get, &mut answer, &mut arena)
        {
            prop_assert!((100..600).contains(&answer.status) && answer.status != 101);
            assert_lines(&answer.fields, &arena);
        }
        let _ = trailers(&mut Decoder::new(4096), &bytes, &RULES.limits, &mut head.fields, &mut arena);
    }
}
