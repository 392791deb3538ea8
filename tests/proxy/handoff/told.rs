//! What next owners and their copies are told of keys that move, in every version, and that nobody else tells them.

use super::*;

/// Keys that a third backend has taken over, without copies, and who had each before. Backends `a` and `b` are there from the beginning.
fn taken_over(ringway: &Ringway, listen: SocketAddr, of: &dyn Fn(usize) -> String) -> Vec<(usize, String)> {
    let before = owners(listen);
    ringway.reconfigure(&of(3));
    let after = owners(listen);
    let moved = before.into_iter().zip(after).enumerate().filter(|(_, (before, after))| before != after);
    let moved: Vec<(usize, String)> = moved.map(|(key, (before, _))| (key, before)).collect();
    assert!(!moved.is_empty() && moved.len() < KEYS / 8, "{moved:?}");
    moved
}

#[test]
fn copies_say_nothing_of_who_the_client_is_unless_that_is_wanted() {
    for (credentials, named) in [("", 0), (", copy: { credentials: true }", 1)] {
        let (fleet, listen) = (echoes(3), free_address());
        let all = targets(&fleet);
        let handoff = format!("window: 1h{credentials}");
        let ringway = Ringway::start(&config(listen, &handoff, &all[..2]));
        ringway.reconfigure(&config(listen, &handoff, &all));
        let secret = "Authorization: Basic c2VjcmV0\r\nCookie: sid=secret\r\nAccept: text/plain\r\n";
        (0..KEYS).for_each(|key| drop(ask(listen, key, secret)));
        let copies = counter(&ringway, "copies_total") as usize;
        let joined = &fleet[2].1;
        if named == 0 {
            // They are sent once: to the next owner, who is told of the previous one.
            assert_eq!((copies, with(joined, COPY).len()), (0, 0));
            assert!(joined.requests().iter().all(|request| request.contains(PREVIOUS)));
            assert!(!joined.requests().is_empty());
            continue;
        }
        wait_for("the copies", || (with(joined, COPY).len() == copies).then_some(()));
        for head in with(joined, COPY) {
            for field in ["Authorization: Basic c2VjcmV0\r\n", "Cookie: sid=secret\r\n"] {
                assert_eq!(head.matches(field).count(), named, "{head}");
            }
            assert!(head.starts_with("GET / HTTP/1.1\r\n") && head.contains("Accept: text/plain\r\n"), "{head}");
        }
        assert!(copies > 0);
    }
}

#[test]
fn credentials_that_a_route_adds_or_takes_away_count_as_they_are_sent_and_explain_says_so() {
    let secret = "authorization: Basic c2VjcmV0";
    let added = "set: [ { name: authorization, value: Basic c2VjcmV0 } ]";
    for (edits, field, copied) in [(added, "accept: */*", false), ("remove: [ Authorization ]", secret, true)] {
        let (fleet, listen) = (echoes(3), free_address());
        let all = targets(&fleet);
        let of = |backends: &[(&str, SocketAddr)]| {
            let route = format!("routes: [ {{ service: s, request_headers: {{ {edits} }} }} ]");
            config(listen, "window: 1h", backends).replace("service: s }", &format!("{route} }}"))
        };
        let ringway = Ringway::start(&of(&all[..2]));
        ringway.reconfigure(&of(&all));
        let (admin, joined) = (ringway.admin.to_string(), all[2].0);
        let mut seen = BTreeMap::new();
        for key in 0..KEYS {
            // Only keys that may go now: of each of the others it is said that it stays.
            if !matches!(explanation_of(&ringway, key)["handoff"]["turn"].as_str(), Some("copied" | "moved")) {
                continue;
            }
            let key_field = format!("x-key: {key}");
            let arguments = [
                "explain",
                "--admin",
                &admin,
                "--request",
                "GET /",
                "-H",
                "host: a",
                "-H",
                &key_field,
                "-H",
                field,
                "--json",
            ];
            let live: serde_json::Value = serde_json::from_slice(&crate::common::ringway(&arguments).stdout).unwrap();
            let turn = live["explanation"]["handoff"]["turn"].as_str().unwrap_or_default().to_owned();
            let got = ask(listen, key, &format!("{field}\r\n"));
            assert_eq!(
                (turn.as_str(), got == joined),
                if copied { ("copied", false) } else { ("moved", true) },
                "{live}"
            );
            *seen.entry(turn).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 1, "{seen:?}");
    }
}

#[test]
fn no_client_names_a_previous_owner_nor_calls_its_request_a_copy() {
    let (fleet, listen) = (echoes(2), free_address());
    let all = targets(&fleet);
    // Not even a hop that is trusted.
    let trusts = format!("address: \"{listen}\", forwarded: {{ trusted: [ 127.0.0.0/8 ] }},");
    let named = config(listen, "header: x-before", &all).replace(&format!("address: \"{listen}\","), &trusts);
    let _ringway = Ringway::start(&named);
    let forged =
        "X-Before: evil 10.0.0.1:80\r\nx_before: evil 10.0.0.1:80\r\nX-Ringway-Handoff: copy\r\nX-Kept: yes\r\n";
    ask(listen, 1, forged);
    if require("curl").is_some() {
        let url = format!("http://{listen}/");
        let fields = ["-H", "x-key: 1", "-H", "x-before: evil", "-H", "x-ringway-handoff: copy", "-H", "x-kept: yes"];
        output("curl", &[&["-s", "--http2-prior-knowledge"][..], &fields, &[&url]].concat());
    }
    // Nor in trailers.
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nX-Key: 1\r\nTransfer-Encoding: chunked\r\nTrailer: x-before\r\nX-Kept: yes\r\n\r\n\
                   2\r\nhi\r\n0\r\nX-Before: evil 10.0.0.1:80\r\n\r\n";
    assert_eq!(read_answer(&mut send(listen, chunked.as_bytes()), true).unwrap().status, 200);
    let requests: Vec<String> = fleet.iter().flat_map(|(_, backend)| backend.requests()).collect();
    assert!(requests.len() >= 2);
    for request in requests {
        let request = request.to_ascii_lowercase();
        assert!(request.contains("x-kept: yes") && !request.contains("evil") && !request.contains("copy"), "{request}");
    }
}

#[test]
fn whatever_a_client_says_of_previous_owners_while_keys_move_the_next_one_is_told_once_and_by_ringway() {
    let (fleet, listen) = (echoes(3), free_address());
    let all = targets(&fleet);
    // Not even a hop that is trusted is let in on it.
    let trusts = format!("address: \"{listen}\", forwarded: {{ trusted: [ 127.0.0.0/8 ] }},");
    let of =
        |count: usize| config(listen, NO_COPIES, &all[..count]).replace(&format!("address: \"{listen}\","), &trusts);
    let ringway = Ringway::start(&of(2));
    let moved = taken_over(&ringway, listen, &of);
    let (key, previous) = &moved[0];
    let address = all.iter().find(|(id, _)| id == previous).unwrap().1;
    let joined = &fleet[2].1;
    let seen = joined.requests().len();
    let told = counter(&ringway, "moved_total");
    let mut sent = 0;
    for forged in [
        "X-Ringway-Previous-Owner: evil 10.0.0.1:80\r\n",
        "x_ringway_previous_owner: evil 10.0.0.1:80\r\n",
        "x-ringway_Previous-owner: evil 10.0.0.1:80\r\nx-ringway-previous-owner: evil 10.0.0.2:80\r\n",
        "Connection: x-ringway-previous-owner\r\nX-Ringway-Previous-Owner: evil 10.0.0.1:80\r\n",
        "Connection: x-ringway-previous-owner, keep-alive\r\n",
        "X-Ringway-Handoff: copy\r\n",
    ] {
        assert_eq!(ask(listen, *key, &format!("X-Kept: yes\r\n{forged}")), "c");
        sent += 1;
    }
    // In a trailer, announced and not.
    for announced in ["", "Trailer: x-ringway-previous-owner\r\n"] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nX-Kept: yes\r\nTransfer-Encoding: chunked\r\n{announced}\r\n\
             2\r\nhi\r\n0\r\nX-Ringway-Previous-Owner: evil 10.0.0.1:80\r\nx_ringway_previous_owner: evil 10.0.0.1:80\r\n\r\n"
        );
        assert_eq!(read_answer(&mut send(listen, request.as_bytes()), true).unwrap().text(), "c");
        sent += 1;
    }
    if require("curl").is_some() {
        let url = format!("http://{listen}/");
        let owner = format!("x-key: {key}");
        for forged in ["x-ringway-previous-owner: evil 10.0.0.1:80", "x_ringway_previous_owner: evil 10.0.0.1:80"] {
            let fields = ["--http2-prior-knowledge", "-H", &owner, "-H", "x-kept: yes", "-H", forged, &url];
            assert_eq!(peers::curl_body(&fields), "c");
            sent += 1;
        }
    }
    let requests = joined.requests().split_off(seen);
    assert_eq!((requests.len(), counter(&ringway, "moved_total") - told), (sent, sent as f64));
    for request in requests {
        let line = format!("\r\n{PREVIOUS}{previous} {address}\r\n");
        assert!(request.contains(&line), "{request}");
        let read = request.to_ascii_lowercase().replace('_', "-");
        assert_eq!((read.matches("previous-owner:").count(), read.matches("x-kept: yes").count()), (1, 1), "{request}");
        assert!(!read.contains("evil") && !read.contains("x-ringway-handoff"), "{request}");
    }
    // Whoever has a key that does not move is told nothing, and nothing of the client's.
    assert!(fleet[..2].iter().all(|(_, backend)| with(backend, "x-ringway-").is_empty()));
    let stays = (0..KEYS).find(|key| moved.iter().all(|(moved, _)| moved != key)).unwrap();
    ask(listen, stays, "X-Ringway-Previous-Owner: evil 10.0.0.1:80\r\nx_ringway_previous_owner: evil\r\n");
    assert!(fleet.iter().all(|(_, backend)| with(backend, "evil").is_empty()));
}

#[test]
fn over_tls_the_next_owner_is_told_once_too() {
    let Some(certificates) = peers::Certificates::new() else { return };
    certificates.issue("one", "DNS:one.test", "1");
    let (fleet, listen, inner) = (echoes(3), free_address(), [free_address(), free_address(), free_address()]);
    // Each backend is a listener of Ringway's with TLS, with an echo behind it that shows what came.
    let listener = |index: usize| {
        format!(
            "  - {{ name: i{index}, address: \"{}\", service: e{index}, forwarded: {{ trusted: [ 127.0.0.0/8 ] }}, \
             tls: {{ certificates: [ {} ] }} }}\n",
            inner[index],
            certificates.entry("one")
        )
    };
    let behind = peers::config(
        &(0..3).map(listener).collect::<String>(),
        &(0..3)
            .map(|index| peers::service(&format!("e{index}"), "", &[("x", fleet[index].1.address)]))
            .collect::<String>(),
    );
    let _behind = Ringway::start(&behind);
    let ids = [("a", inner[0]), ("b", inner[1]), ("c", inner[2])];
    let tls = format!("tls: {{ ca: \"{}\", sni: one.test }}\n    handoff:", certificates.text("ca.pem"));
    let of = |count: usize| config(listen, NO_COPIES, &ids[..count]).replace("handoff:", &tls);
    let ringway = Ringway::start(&of(2));
    for (key, previous) in taken_over(&ringway, listen, &of) {
        assert_eq!(ask(listen, key, ""), "c");
        let address = ids.iter().find(|(id, _)| *id == previous).unwrap().1;
        let last = fleet[2].1.requests().pop().unwrap();
        assert!(last.contains(&format!("\r\n{PREVIOUS}{previous} {address}\r\n")), "{last}");
    }
    assert!(fleet[2].1.requests().iter().all(|request| request.matches(PREVIOUS).count() == 1));
}

#[test]
fn a_request_that_is_tried_again_on_the_next_owner_tells_it_once_each_time_and_is_counted_once() {
    let listen = free_address();
    let (a, b) = (Backend::echo("a"), Backend::echo("b"));
    let failing = Arc::new(AtomicUsize::new(0));
    let fails = Arc::clone(&failing);
    // So many of its responses are ones that are tried again.
    let c =
        scripted(move |_| match fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => response("503 Service Unavailable", "", "c"),
            Err(_) => response("200 OK", "", "c"),
        });
    let all = [("a", a.address), ("b", b.address), ("c", c.address)];
    let of = |count: usize| {
        let retry = "retry: { attempts: 2, same_backend: always, on: [ gateway ] }\n    handoff:";
        config(listen, NO_COPIES, &all[..count]).replace("handoff:", retry)
    };
    let ringway = Ringway::start(&of(2));
    let moved = taken_over(&ringway, listen, &of);
    let (key, previous) = &moved[0];
    let (seen, told) = (c.requests().len(), counter(&ringway, "moved_total"));
    failing.store(2, Ordering::SeqCst);
    assert_eq!(ask(listen, *key, "X-Kept: yes\r\n"), "c");
    let requests = c.requests().split_off(seen);
    assert_eq!((requests.len(), counter(&ringway, "moved_total") - told), (3, 1.0));
    let address = all.iter().find(|(id, _)| id == previous).unwrap().1;
    for request in &requests {
        assert_eq!((request, request.matches(PREVIOUS).count()), (&requests[0], 1));
        assert!(request.contains("X-Kept: yes\r\n") && request.contains(&format!("{previous} {address}\r\n")));
    }
    // Tried elsewhere, nobody is told there.
    ringway.reconfigure(&of(3).replace("same_backend: always", "same_backend: never"));
    failing.store(1, Ordering::SeqCst);
    let elsewhere = ask(listen, *key, "X-Tried: again\r\n");
    assert!(elsewhere != "c" && with(&c, "X-Tried: again").len() == 1, "{elsewhere}");
    let others: Vec<String> = [&a, &b].iter().flat_map(|backend| with(backend, "X-Tried: again")).collect();
    assert!(others.len() == 1 && !others[0].contains(PREVIOUS), "{others:?}");
}

#[test]
fn over_http2_the_next_owner_is_told_and_copies_are_marked_too() {
    let (fleet, listen, inner) = (echoes(3), free_address(), [free_address(), free_address(), free_address()]);
    // Each backend is a listener of Ringway's that speaks HTTP/2, with an echo behind it that shows what came.
    let listener = |index: usize| {
        let address = inner[index];
        format!(
            "  - {{ name: i{index}, address: \"{address}\", service: e{index}, forwarded: {{ trusted: [ 127.0.0.0/8 ] }} }}\n"
        )
    };
    let echo = |index: usize| {
        format!("  - {{ name: e{index}, backends: [ {{ id: x, address: \"{}\" }} ] }}\n", fleet[index].1.address)
    };
    let behind = format!(
        "workers: 1\nadmin: {{ address: \"ADMIN\" }}\nlisteners:\n{}services:\n{}",
        (0..3).map(listener).collect::<String>(),
        (0..3).map(echo).collect::<String>()
    );
    let _behind = Ringway::start(&behind);
    let ids = [("a", inner[0]), ("b", inner[1]), ("c", inner[2])];
    let of =
        |count: usize| config(listen, "window: 1h", &ids[..count]).replace("handoff:", "protocol: h2\n    handoff:");
    let ringway = Ringway::start(&of(2));
    ringway.reconfigure(&of(3));
    let fields = "If-None-Match: \"a\"\r\n";
    let first: Vec<String> = (0..KEYS).map(|key| ask(listen, key, fields)).collect();
    assert!(first.iter().all(|owner| owner != "c"));
    let copies = counter(&ringway, "copies_total") as usize;
    let joined = &fleet[2].1;
    wait_for("the copies", || (with(joined, COPY).len() == copies).then_some(()));
    wait_for_copies(&ringway);
    let second: Vec<String> = (0..KEYS).map(|key| ask(listen, key, fields)).collect();
    let count = moved(&first, &second);
    assert!(copies > 0 && count + 2 >= copies, "{count} of {copies}");
    for head in with(joined, "GET ") {
        assert!(head.contains(PREVIOUS), "{head}");
        assert_eq!(head.contains(COPY), !head.to_ascii_lowercase().contains("if-none-match: "), "{head}");
    }
}

#[test]
fn whatever_versions_clients_and_backends_speak_a_key_goes_over_once_and_for_all_of_them() {
    if require("curl").is_none() || require_python("h2").is_none() {
        return;
    }
    let fleet = echoes(3);
    let inner = [free_address(), free_address(), free_address()];
    // The backends of `t` are listeners of Ringway's that speak HTTP/2, with the echoes behind them that those of `s` are themselves.
    let listener = |index: usize| {
        let (address, trusts) = (inner[index], "forwarded: { trusted: [ 127.0.0.0/8 ] }");
        format!("  - {{ name: i{index}, address: \"{address}\", service: e{index}, {trusts} }}\n")
    };
    let echo = |index: usize| peers::service(&format!("e{index}"), "", &[("x", fleet[index].1.address)]);
    let listeners: String = (0..3).map(listener).collect();
    let _behind = Ringway::start(&peers::config(&listeners, &(0..3).map(echo).collect::<String>()));
    let (s, t) = (free_address(), free_address());
    let of = |count: usize| {
        // Many at once: none is to go elsewhere because an owner is full.
        let handoff =
            "balance: { hash_key: [ { path: {} } ], bounded_load: { preset: off } }, handoff: { window: 1h },";
        let http1: Vec<(&str, SocketAddr)> = targets(&fleet)[..count].to_vec();
        let http2: Vec<(&str, SocketAddr)> = ["a", "b", "c"].into_iter().zip(inner).take(count).collect();
        peers::config(
            &format!(
                "  - {{ name: s, address: \"{s}\", service: s }}\n  - {{ name: t, address: \"{t}\", service: t }}\n"
            ),
            &(peers::service("s", handoff, &http1) + &peers::service("t", &format!("protocol: h2, {handoff}"), &http2)),
        )
    };
    let ringway = Ringway::start(&of(2));
    let counted = |service: &str, name: &str| {
        ringway.metric(&format!("ringway_handoff_{name}_total{{service=\"{service}\"}}")) as usize
    };
    type Version<'a> = &'a dyn Fn(SocketAddr, &str) -> String;
    // All keys over one connection, each backend's name a letter.
    let http1 = |listen: SocketAddr, service: &str| -> String {
        peers::curl_body(&["--http1.1", &format!("http://{listen}/{service}/[1-{KEYS}]")])
    };
    let http2 = |listen: SocketAddr, service: &str| -> String {
        let script = format!("{}{ALL_KEYS}", include_str!("../../python/h2client.py"));
        let arguments = [listen.to_string(), service.to_owned(), KEYS.to_string()];
        let done = Command::new("python3").args(["-c", &script]).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let all = |version: Version<'_>, listen: SocketAddr, service: &str| -> Vec<char> {
        let owners = version(listen, service);
        assert_eq!(owners.len(), KEYS, "{owners}");
        owners.chars().collect()
    };
    let before = [all(&http1, s, "s"), all(&http2, t, "t")];
    ringway.reconfigure(&of(3));
    let joined = &fleet[2].1;
    let versions: [[Version<'_>; 3]; 2] = [[&http2, &http1, &http2], [&http2, &http2, &http1]];
    for ((service, listen, before), versions) in [("s", s, &before[0]), ("t", t, &before[1])].into_iter().zip(versions)
    {
        assert_eq!(&all(versions[0], listen, service), before, "{service}: each is served once more by who has it");
        wait_for("the responses to copies", || {
            let status = ringway.status();
            let services = status["services"].as_array()?.clone();
            let windows = services.iter().flat_map(|service| service["handoffs"].as_array().into_iter().flatten());
            windows.map(|window| window["copies_in_flight"] == 0).reduce(|all, one| all && one)?.then_some(())
        });
        let copies = counted(service, "copies");
        assert_eq!(with(joined, COPY).iter().filter(|head| head.contains(&format!("/{service}/"))).count(), copies);
        let second = all(versions[1], listen, service);
        let moved: Vec<usize> = (0..KEYS).filter(|key| second[*key] != before[*key]).collect();
        assert!(copies > 0 && moved.len() == copies, "{service}: {moved:?} of {copies}");
        assert!(moved.iter().all(|key| second[*key] == 'c'));
        let third = all(versions[2], listen, service);
        assert!(moved.iter().all(|key| third[*key] == 'c'), "{service}: none goes back, whatever its client speaks");
        for key in moved {
            let heads = with(joined, &format!("GET /{service}/{} ", key + 1));
            assert_eq!(heads.len(), 3, "a copy, and two requests: {heads:?}");
            let told = format!("{PREVIOUS}{} ", before[key]);
            assert!(heads.iter().all(|head| head.matches(&told).count() == 1), "{heads:?}");
            assert_eq!(heads.iter().filter(|head| head.contains(COPY)).count(), 1, "{heads:?}");
        }
    }
}
