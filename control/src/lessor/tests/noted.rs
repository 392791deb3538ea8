//! What has become of proxies, for people.

use super::*;

fn told(lessor: &Lessor) -> Vec<(String, String)> {
    lessor.events().into_iter().map(|event| (event.proxy, event.what.into_owned())).collect()
}

#[test]
fn what_becomes_of_proxies_is_told_once_and_since_when_they_stand_so() {
    let start = Instant::now();
    let mut state = leased(1);
    let mut lessor = lessor(start);
    let at = |second: u64| start + Duration::from_secs(second);
    let say = |lessor: &mut Lessor, state: &State, name: &str, second: u64, change: &dyn Fn(&mut Heartbeat)| {
        let mut said = heartbeat(state);
        change(&mut said);
        lessor.handle_heartbeat(state, name.into(), said, at(second));
    };
    say(&mut lessor, &state, "old", 1, &|_| {});
    run(&mut lessor, &mut state, start, 1..9);
    assert_eq!(told(&lessor), [("old".into(), "offline".into())], "that it is there was so before this leader");
    say(&mut lessor, &state, "new", 9, &|_| {});
    say(&mut lessor, &state, "old", 9, &|_| {});
    run(&mut lessor, &mut state, start, 9..11);
    assert_eq!(told(&lessor)[1..], [("new".into(), "came".into()), ("old".into(), "synced".into())]);
    for second in 11..15 {
        say(&mut lessor, &state, "old", second, &|said| said.digest = "another".into());
        say(&mut lessor, &state, "new", second, &|said| said.revision -= 1);
        run(&mut lessor, &mut state, start, second..second + 1);
    }
    assert_eq!(told(&lessor)[3..], [("old".into(), "drifted".into())], "behind is everybody for a moment");
    let why = &lessor.events()[3].why;
    assert!(why.contains("another") && why.contains(&state.digest.to_string()), "{why}");
    let drifted = lessor.fleet(&state, at(15)).into_iter().find(|proxy| proxy.name == "old").unwrap();
    assert!((2_500..=4_000).contains(&drifted.since_ms.unwrap()), "{drifted:?}");
    for second in 15..18 {
        say(&mut lessor, &state, "new", second, &|said| said.revision -= 1);
        run(&mut lessor, &mut state, start, second..second + 1);
    }
    assert_eq!(told(&lessor)[4..], [("new".into(), "behind".into())]);
    say(&mut lessor, &state, "old", 18, &|said| said.digest = "another".into());
    say(&mut lessor, &state, "odd", 18, &|said| said.stuck = Some("port taken".into()));
    run(&mut lessor, &mut state, start, 18..20);
    assert_eq!(told(&lessor)[5..], [("odd".into(), "came".into()), ("odd".into(), "stuck".into())]);
    assert!(lessor.handle_sign_off(&state, "odd", None));
    assert!(lessor.handle_sign_off(&state, "new", None));
    run(&mut lessor, &mut state, start, 20..22);
    assert_eq!(told(&lessor)[7..], [("odd".into(), "left".into()), ("new".into(), "left".into())]);
    for second in 22..700 {
        let stuck = |said: &mut Heartbeat| said.stuck = (second % 2 == 0).then(|| "x".repeat(4_000));
        say(&mut lessor, &state, "old", second, &stuck);
        run(&mut lessor, &mut state, start, second..second + 1);
    }
    let events = lessor.events();
    assert!(events.len() == 256 && events.iter().all(|event| event.why.len() < 300), "{}", events.len());
}
