//! What the fleet has agreed on, on top of a proxy's own file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ringway_config::{Diagnostics, FleetBackend, FleetConfig, FleetText, Loaded, check_fleet, load_str_with};

const FILE: &str = r#"
admin: { enabled: false }
control: { members: [ "http://127.0.0.1:9700" ] }
listeners:
  - { name: web, address: "127.0.0.1:8080", service: api }
services:
  - name: api
    backends: [ { id: a, address: "127.0.0.1:1", requests_max: 7 }, { id: b, address: "127.0.0.1:2" } ]
"#;

fn document(text: &str) -> FleetConfig {
    FleetConfig {
        documents: vec![FleetText { name: "control plane: document main".into(), text: text.into() }],
        ..FleetConfig::default()
    }
}

fn load(fleet: &FleetConfig) -> Result<Loaded, Diagnostics> {
    load_str_with("ringway.yaml", FILE, &|_| None, fleet)
}

fn backend(service: &str, id: &str, address: &str) -> FleetBackend {
    FleetBackend {
        service: service.into(),
        id: id.into(),
        address: address.into(),
        additional_address: None,
        weight: 100,
        tier: 0,
        zone: None,
        drain: false,
        maintenance: false,
    }
}

#[test]
fn without_a_fleet_the_file_is_all() {
    let loaded = load(&FleetConfig::default()).unwrap();
    assert_eq!((loaded.config.services.len(), loaded.config.listeners.len()), (1, 1));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn the_fleets_services_and_listeners_win_by_name_and_join_otherwise() {
    let fleet = document(
        "drain_timeout: 7s\naccess_log: { format: json }\nadmin: { enabled: true, address: \"0.0.0.0:1\" }\n\
         listeners: [ { name: more, address: \"127.0.0.1:8081\", service: cache } ]\n\
         services:\n  - { name: api, backends: [ { id: z, address: \"127.0.0.1:9\" } ] }\n  \
         - { name: cache, backends: [ { id: c, address: \"127.0.0.1:3\" } ] }\n",
    );
    let loaded = load(&fleet).unwrap();
    let names: Vec<&str> = loaded.config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["api", "cache"]);
    assert_eq!(loaded.config.services[0].backends[0].id, "z");
    assert_eq!(loaded.config.listeners.len(), 2);
    assert_eq!(loaded.config.drain_timeout.as_secs(), 7, "the file does not say it");
    assert_eq!(loaded.config.admin, None, "the file says it");
    let codes: Vec<&str> = loaded.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(codes, ["fleet_wins"]);
    assert_eq!((loaded.warnings[0].file.as_str(), loaded.warnings[0].line), ("ringway.yaml", 7));
}

#[test]
fn registered_backends_join_their_service_and_win_by_id() {
    let mut drained = backend("api", "a", "127.0.0.1:77");
    drained.drain = true;
    let fleet =
        FleetConfig { backends: vec![drained, backend("api", "new", "127.0.0.1:78")], ..FleetConfig::default() };
    let service = &load(&fleet).unwrap().config.services[0];
    let ids: Vec<&str> = service.backends.iter().map(|backend| backend.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "new"]);
    let a = &service.backends[0];
    assert_eq!((a.address.port(), a.drain, a.requests_max), (77, true, 7), "limits are the file's");
}

#[test]
fn a_service_may_wait_for_its_backends_and_strangers_backends_are_told_of() {
    let mut fleet = FleetConfig {
        services: vec![("late".into(), FleetText { name: "control plane: service late".into(), text: "{}".into() })],
        backends: vec![backend("nowhere", "x", "127.0.0.1:5")],
        ..FleetConfig::default()
    };
    let loaded = load(&fleet).unwrap();
    assert_eq!(loaded.config.services[1].backends, []);
    assert_eq!(loaded.warnings.iter().map(|warning| warning.code).collect::<Vec<_>>(), ["unknown_service"]);
    fleet.backends[0].service = "late".into();
    assert_eq!(load(&fleet).unwrap().config.services[1].backends[0].id, "x");
}

#[test]
fn findings_name_the_text_that_they_are_in() {
    let fleet = document("services:\n  - name: cache\n    polcy: 3\n    backends: [ { id: a, address: nowhere } ]\n");
    let Diagnostics(found) = load(&fleet).unwrap_err();
    let places: Vec<_> = found.iter().map(|finding| (finding.file.as_str(), finding.line, finding.code)).collect();
    let document = "control plane: document main";
    assert_eq!(places, [(document, 3, "unknown_field"), (document, 4, "bad_address")]);
    assert!(found[0].to_string().contains("polcy: 3"), "the line is shown: {}", found[0]);
    let Diagnostics(found) =
        load(&FleetConfig { backends: vec![backend("api", "n", "nowhere")], ..FleetConfig::default() }).unwrap_err();
    assert_eq!(found[0].code, "bad_address");
}

#[test]
fn the_fleets_texts_have_no_variables_and_no_control() {
    let Diagnostics(found) = check_fleet(&document("control: {}\nservices: [ { name: \"${HOME}\" } ]")).unwrap_err();
    let codes: Vec<&str> = found.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"control_in_fleet"), "{codes:?}");
    assert!(found.iter().any(|finding| finding.message.contains("no variables")), "{found:?}");
}

#[test]
fn two_of_the_fleets_of_one_name_are_refused() {
    let mut fleet = document("services: [ { name: twice } ]");
    let text = FleetText { name: "control plane: service twice".into(), text: "{ name: twice }".into() };
    fleet.services.push(("twice".into(), text.clone()));
    let Diagnostics(found) = check_fleet(&fleet).unwrap_err();
    assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["duplicate_name"]);
    let fleet = FleetConfig { services: vec![("other".into(), text)], ..FleetConfig::default() };
    assert_eq!(check_fleet(&fleet).unwrap_err().0[0].code, "wrong_name");
}

#[test]
fn certificates_are_referred_to_by_name() {
    let text = "services: [ { name: s } ]\nlisteners:\n  - name: tls\n    address: \"127.0.0.1:8443\"\n    service: s\n    \
                tls: { certificates: [ { certificate: \"control:web\", key: \"control:web\" } ] }\n";
    let mut fleet = document(text);
    fleet.certificates.insert("web".into(), ("/x/web.pem".into(), "/x/web.key".into()));
    let loaded = load(&fleet).unwrap();
    let tls = loaded.config.listeners[1].tls.as_ref().unwrap();
    assert_eq!(tls.certificates[0].certificate.to_str(), Some("/x/web.pem"));
    assert_eq!(tls.certificates[0].key.to_str(), Some("/x/web.key"));
    // The proxy's own file may refer to them as well.
    let own = format!("control: {{ members: [ \"http://127.0.0.1:1\" ] }}\n{text}");
    let none = FleetConfig { documents: Vec::new(), ..fleet.clone() };
    let loaded = load_str_with("f", &own, &|_| None, &none).unwrap();
    let tls = loaded.config.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificates[0].certificate.to_str(), Some("/x/web.pem"));
    fleet.certificates.clear();
    let Diagnostics(found) = load(&fleet).unwrap_err();
    assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["unknown_certificate"; 2]);
}

#[test]
fn texts_of_any_kind_do_not_panic() {
    for text in
        ["", "3", "[]", "services: 3", "listeners: { a: b }", "services: [ 3, [ ], { name: [ ] } ]", "\t", "a: *b"]
    {
        let mut fleet = document(text);
        fleet.services.push(("s".into(), FleetText { name: "s".into(), text: text.into() }));
        fleet.backends.push(backend("api", "", ""));
        assert!(load(&fleet).is_err(), "{text:?}: a backend without a name is never taken");
    }
}

#[test]
fn a_file_may_refer_to_services_that_the_fleet_has_not_said_yet() {
    let file = "control: { members: [ \"http://127.0.0.1:1\" ] }\n\
                listeners:\n  - { name: a, address: \"127.0.0.1:1\", service: late }\n  \
                - { name: b, address: \"127.0.0.1:2\", service: late }\n";
    let loaded = load_str_with("f", file, &|_| None, &FleetConfig::default()).unwrap();
    assert_eq!(loaded.config.services[0].name, "late");
    assert_eq!(
        loaded.warnings.iter().map(|warning| (warning.code, warning.line)).collect::<Vec<_>>(),
        [("awaited_service", 3)]
    );
    let loaded = load_str_with(
        "f",
        file,
        &|_| None,
        &document("services: [ { name: late, backends: [ { id: a, address: \"127.0.0.1:3\" } ] } ]"),
    )
    .unwrap();
    assert_eq!((loaded.config.services[0].backends.len(), loaded.warnings.len()), (1, 0));
    // The fleet's own texts are whole.
    let Diagnostics(found) =
        check_fleet(&document("listeners: [ { name: a, address: \"127.0.0.1:1\", service: nowhere } ]")).unwrap_err();
    assert_eq!(found[0].code, "dangling_service");
}
