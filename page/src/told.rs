//! What is told to those who look: a frame, and what has changed of it since the one before. What all are shown is made and written once,
//! whatever services they look at besides.

use crate::patch;
use crate::source::Source;
use bytes::Bytes;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// See the module.
#[derive(Default)]
pub(crate) struct Told {
    common: Part,
    /// To those who look at no service.
    plain: Messages,
    services: HashMap<String, (Part, Messages)>,
}

/// Fields of a frame.
#[derive(Default)]
struct Part {
    fields: Value,
    /// As JSON; and what has changed of them.
    whole: String,
    patch: String,
}

/// For those who have no frame yet, and for those who have the one before.
#[derive(Default)]
pub(crate) struct Messages {
    pub(crate) whole: Bytes,
    pub(crate) patch: Bytes,
}

impl Told {
    /// Forgets services that nobody looks at, and tells the others anew. `is_due`: there is a new sample; else only those are told of that
    /// nobody has looked at before.
    pub(crate) fn renew(&mut self, source: &mut impl Source, wanted: HashSet<String>, is_due: bool) {
        if is_due {
            self.common.renew(source.common());
            self.plain = Messages::of([&self.common]);
        }
        self.services.retain(|name, _| wanted.contains(name));
        for name in wanted {
            if !is_due && self.services.contains_key(&name) {
                continue;
            }
            let shown = source.service(&name).map(|shown| ("service".to_owned(), shown));
            let (part, messages) = self.services.entry(name).or_default();
            part.renew(shown.into_iter().collect());
            *messages = Messages::of([&self.common, part]);
        }
    }

    /// For who looks at a service, or at none.
    pub(crate) fn of(&self, service: Option<&str>) -> Option<&Messages> {
        service.map_or(Some(&self.plain), |name| self.services.get(name).map(|(_, messages)| messages))
    }
}

impl Part {
    fn renew(&mut self, fields: Map<String, Value>) {
        let fields = Value::Object(fields);
        self.patch = patch::between(&self.fields, &fields).to_string();
        self.whole = fields.to_string();
        self.fields = fields;
    }
}

impl Messages {
    fn of<const COUNT: usize>(parts: [&Part; COUNT]) -> Self {
        Self {
            whole: message("frame", parts.map(|part| part.whole.as_str())),
            patch: message("change", parts.map(|part| part.patch.as_str())),
        }
    }
}

/// An event of a stream, of objects that have no field in common. JSON has no line ends of its own.
fn message<const COUNT: usize>(event: &str, objects: [&str; COUNT]) -> Bytes {
    let fields =
        objects.map(|object| object.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default());
    let fields: Vec<&str> = fields.into_iter().filter(|fields| !fields.is_empty()).collect();
    Bytes::from(format!("event: {event}\ndata: {{{}}}\n\n", fields.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Counts what is made.
    #[derive(Default)]
    struct Made {
        common: usize,
        services: usize,
        is_gone: bool,
    }

    impl Source for Made {
        async fn sample(&mut self, _: &HashSet<String>) {}

        fn common(&mut self) -> Map<String, Value> {
            self.common += 1;
            Map::from_iter([("made".to_owned(), json!({ "n": self.common }))])
        }

        fn service(&mut self, name: &str) -> Option<Value> {
            self.services += 1;
            (!self.is_gone).then(|| json!({ "name": name }))
        }
    }

    fn said(bytes: &Bytes) -> (String, Value) {
        let text = std::str::from_utf8(bytes).unwrap();
        let (event, data) = text.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        (event.to_owned(), serde_json::from_str(data).unwrap())
    }

    #[test]
    fn what_all_are_shown_is_made_once_whatever_they_look_at() {
        let (mut told, mut made) = (Told::default(), Made::default());
        let wanted: HashSet<String> = (0..20).map(|number| format!("s{number}")).collect();
        told.renew(&mut made, wanted.clone(), true);
        assert_eq!((made.common, made.services), (1, 20));
        told.renew(&mut made, wanted.clone().into_iter().chain(["new".into()]).collect(), false);
        assert_eq!(
            (made.common, made.services),
            (1, 21),
            "who comes between two samples costs no more than its own service"
        );
        assert_eq!(
            said(&told.of(Some("new")).unwrap().whole),
            ("frame".into(), json!({ "made": { "n": 1 }, "service": { "name": "new" } }))
        );
        assert_eq!(said(&told.of(None).unwrap().whole).1, json!({ "made": { "n": 1 } }));
        made.is_gone = true;
        told.renew(&mut made, wanted, true);
        assert!(told.of(Some("new")).is_none());
        let change = json!({ "made": { "n": 2 }, "service": null });
        assert_eq!(said(&told.of(Some("s3")).unwrap().patch), ("change".into(), change));
        assert_eq!(said(&told.of(None).unwrap().patch).1, json!({ "made": { "n": 2 } }));
    }

    #[test]
    fn of_nothing_nothing_is_said() {
        assert_eq!(message("change", ["{}", "{}"]), "event: change\ndata: {}\n\n");
        assert_eq!(message("change", ["{}", "{\"a\":{}}"]), "event: change\ndata: {\"a\":{}}\n\n");
    }
}
