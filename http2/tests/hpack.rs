//! The compression of fields, by the RFC's own examples and against another implementation.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::has;
use ringway_http2::hpack::{Decoder, HpackError, encode};
use std::io::Write as _;
use std::process::{Command, Stdio};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

type Fields = Vec<(String, String)>;

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, HpackError> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fields = Vec::new();
    decoder.decode(block, |field| fields.push((text(field.name), text(field.value))))?;
    Ok(fields)
}

fn fields(list: &[(&str, &str)]) -> Fields {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A block, its fields, and the table after it, newest first.
type Example<'e> = (&'e str, &'e [(&'e str, &'e str)], &'e [(&'e str, &'e str)]);

/// Decodes the blocks of one connection.
fn check(table_bytes: u32, blocks: &[Example<'_>]) {
    let mut decoder = Decoder::new(4096);
    if table_bytes < 4096 {
        decoder.handle_settings_acknowledged(table_bytes);
        let mut update = vec![0x3f];
        let mut rest = table_bytes - 31;
        while rest >= 128 {
            update.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        update.push(rest as u8);
        decode(&mut decoder, &update).unwrap();
    }
    for (block, expected, table) in blocks {
        assert_eq!(decode(&mut decoder, &bytes(block)).unwrap(), fields(expected), "{block}");
        for (index, entry) in table.iter().enumerate() {
            assert_eq!(decode(&mut decoder, &[0xbe + index as u8]).unwrap(), fields(&[*entry]), "{block}: {index}");
        }
        assert_eq!(decode(&mut decoder, &[0xbe + table.len() as u8]), Err(HpackError::Index), "{block}");
    }
}

#[test]
fn appendix_c_2_one_field_in_each_form() {
    for (block, field, is_remembered) in [
        ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", ("custom-key", "custom-header"), true),
        ("040c 2f73 616d 706c 652f 7061 7468", (":path", "/sample/path"), false),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", ("password", "secret"), false),
        ("82", (":method", "GET"), false),
    ] {
        check(4096, &[(block, &[field], if is_remembered { std::slice::from_ref(&field) } else { &[] })]);
    }
}

const REQUEST_1: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
const REQUEST_2: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const REQUEST_3: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];
const REQUEST_TABLE: &[(&str, &str)] =
    &[("custom-key", "custom-value"), ("cache-control", "no-cache"), (":authority", "www.example.com")];

#[test]
fn appendix_c_3_requests_without_huffman_coding() {
    check(
        4096,
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUEST_1, &REQUEST_TABLE[2..]),
            ("8286 84be 5808 6e6f 2d63 6163 6865", REQUEST_2, &REQUEST_TABLE[1..]),
            ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", REQUEST_3, REQUEST_TABLE),
        ],
    );
}

#[test]
fn appendix_c_4_requests_with_huffman_coding() {
    check(
        4096,
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUEST_1, &REQUEST_TABLE[2..]),
            ("8286 84be 5886 a8eb 1064 9cbf", REQUEST_2, &REQUEST_TABLE[1..]),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", REQUEST_3, REQUEST_TABLE),
        ],
    );
}

const DATE_1: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
const DATE_2: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
const LOCATION: (&str, &str) = ("location", "https://www.example.com");
const PRIVATE: (&str, &str) = ("cache-control", "private");
const GZIP: (&str, &str) = ("content-encoding", "gzip");
const COOKIE: (&str, &str) = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
const RESPONSES: [&[(&str, &str)]; 3] = [
    &[(":status", "302"), PRIVATE, DATE_1, LOCATION],
    &[(":status", "307"), PRIVATE, DATE_1, LOCATION],
    &[(":status", "200"), PRIVATE, DATE_2, LOCATION, GZIP, COOKIE],
];
/// With a table of 256 bytes: entries leave.
const RESPONSE_TABLES: [&[(&str, &str)]; 3] = [
    &[LOCATION, DATE_1, PRIVATE, (":status", "302")],
    &[(":status", "307"), LOCATION, DATE_1, PRIVATE],
    &[COOKIE, GZIP, DATE_2],
];

#[test]
fn appendix_c_5_responses_without_huffman_coding() {
    let blocks = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d \
         546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f \
         6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b \
         2076 6572 7369 6f6e 3d31",
    ];
    check(256, &std::array::from_fn::<_, 3, _>(|index| (blocks[index], RESPONSES[index], RESPONSE_TABLES[index])));
}

#[test]
fn appendix_c_6_responses_with_huffman_coding() {
    let blocks = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 \
         8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 \
         dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    check(256, &std::array::from_fn::<_, 3, _>(|index| (blocks[index], RESPONSES[index], RESPONSE_TABLES[index])));
}

/// Another implementation encodes random lists with every form it has, its table of changing size, and decodes what we have encoded.
const PEER: &str = r#"
import random, sys
from hpack import Encoder, Decoder, NeverIndexedHeaderTuple
draw = random.Random(14)
names = ["x-a", "x-request-id", "accept", "cookie", "user-agent", ":path", ":authority", "grpc-timeout", "content-type"]
def text(most):
    kind = draw.randrange(3)
    letters = "abcdefghij0123456789" if kind else "".join(chr(c) for c in range(32, 127))
    return "".join(draw.choice(letters) for _ in range(draw.randrange(most)))
values = [text(60) for _ in range(30)]
encoder = Encoder()
for _ in range(400):
    if draw.randrange(10) == 0:
        encoder.header_table_size = draw.choice([0, 31, 64, 200, 1000, 4096])
    fields = []
    for _ in range(draw.randrange(12)):
        field = (draw.choice(names), draw.choice(values) if draw.randrange(3) else text(draw.choice([5, 300, 5000])))
        fields.append(NeverIndexedHeaderTuple(*field) if draw.randrange(8) == 0 else field)
    block = encoder.encode(fields, huffman=bool(draw.randrange(2)))
    print("block", block.hex())
    for field in fields:
        print("field", int(isinstance(field, NeverIndexedHeaderTuple)), field[0].encode().hex(), field[1].encode().hex() or "-")
print("end", flush=True)
decoder = Decoder(max_header_list_size=1 << 20)
for line in sys.stdin:
    fields = decoder.decode(bytes.fromhex(line.strip()), raw=True)
    print(" ".join(f"{name.hex()}={value.hex()}={int(not field.indexable)}" for field in fields for name, value in [field]))
"#;

#[test]
fn both_directions_agree_with_another_implementation() {
    if !has("python3", &["-c", "import hpack"]) {
        return;
    }
    let peer = |input: &[u8]| {
        let mut child =
            Command::new("python3").args(["-c", PEER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It reads once it has written all; a pipe holds less than that, so the input is small.
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = peer(b"");
    let mut decoder = Decoder::new(4096);
    // Name, value, never to be indexed.
    type Field = (Vec<u8>, Vec<u8>, bool);
    let mut lists: Vec<Vec<Field>> = Vec::new();
    let mut blocks = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["block", block] => {
                blocks.push(bytes(block));
                lists.push(Vec::new());
            }
            ["field", sensitive, name, value] => {
                lists.last_mut().unwrap().push((bytes(name), bytes(value), sensitive == "1"));
            }
            ["end"] => break,
            _ => panic!("{line}"),
        }
    }
    assert_eq!(blocks.len(), 400);
    let mut never_indexed = 0;
    for (block, list) in blocks.iter().zip(&lists) {
        let mut decoded = Vec::new();
        decoder
            .decode(block, |field| decoded.push((field.name.to_vec(), field.value.to_vec(), field.sensitive)))
            .unwrap();
        assert_eq!(decoded.len(), list.len());
        for (decoded, expected) in decoded.iter().zip(list) {
            assert_eq!((&decoded.0, &decoded.1), (&expected.0, &expected.1));
            // Theirs refers to what it has remembered, whatever it was asked for.
            assert!(!decoded.2 || expected.2);
            never_indexed += usize::from(decoded.2);
        }
    }
    assert!(never_indexed > 50, "{never_indexed}");

    // And ours: one connection, whose first block begins with the update.
    let mut input = String::new();
    let ours: Vec<_> =
        lists.iter().filter(|list| list.iter().all(|(_, value, _)| value.len() < 200)).take(60).collect();
    for (index, list) in ours.iter().enumerate() {
        let mut block = Vec::new();
        if index == 0 {
            encode::size_update_to_zero(&mut block);
        }
        for (name, value, sensitive) in *list {
            match &name[..] {
                b":path" => encode::path(&mut block, value, *sensitive),
                b":authority" => encode::authority(&mut block, value, *sensitive),
                _ => encode::field(&mut block, name, value, *sensitive),
            }
        }
        input += &hex(&block);
        input.push('\n');
    }
    assert!(ours.len() > 20 && input.len() < 60_000, "{} lists, {} bytes", ours.len(), input.len());
    let text = peer(input.as_bytes());
    let answers: Vec<_> = text.lines().skip_while(|line| *line != "end").skip(1).collect();
    assert_eq!(answers.len(), ours.len());
    for (answer, list) in answers.iter().zip(ours) {
        let decoded: Vec<_> = answer
            .split_whitespace()
            .map(|field| {
                let parts: Vec<_> = field.split('=').collect();
                (bytes(parts[0]), bytes(parts[1]), parts[2] == "1")
            })
            .collect();
        assert_eq!(decoded.len(), list.len());
        for ((name, value, never), (expected_name, expected, sensitive)) in decoded.iter().zip(list) {
            assert_eq!((name, value), (expected_name, expected));
            // Short cookies are, besides.
            assert!(*never || !sensitive);
        }
    }
}
