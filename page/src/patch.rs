//! Merge patches (RFC 7396): what makes one JSON value another.

use serde_json::{Map, Value};

/// What has to be merged into `old` to have `new`. Neither has a null anywhere: a patch means by it that a field is gone.
pub(crate) fn between(old: &Value, new: &Value) -> Value {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => Value::Object(of_fields(old, new)),
        _ => new.clone(),
    }
}

fn of_fields(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let mut patch: Map<String, Value> = gone.collect();
    for (name, value) in new {
        match old.get(name) {
            Some(before) if before == value => {}
            // An object that takes the place of something else is merged into nothing.
            Some(before @ Value::Object(_)) => {
                patch.insert(name.clone(), between(before, value));
            }
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// As RFC 7396, section 2, has it.
    fn apply(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut fields = if let Value::Object(fields) = target { fields } else { Map::new() };
        for (name, value) in patch {
            if value.is_null() {
                fields.remove(name);
            } else {
                let before = fields.remove(name).unwrap_or(Value::Null);
                fields.insert(name.clone(), apply(before, value));
            }
        }
        Value::Object(fields)
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..4_i32).prop_map(Value::from),
            "[ab<\"\n]{0,2}".prop_map(Value::from),
            Just(json!([1, { "a": 2 }])),
        ];
        let value = leaf.prop_recursive(3, 24, 4, |inner| {
            proptest::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect()))
        });
        proptest::collection::btree_map("[a-d]", value, 0..5)
            .prop_map(|fields| Value::Object(fields.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn what_is_patched_is_the_new_value(old in values(), new in values()) {
            prop_assert_eq!(apply(old.clone(), &between(&old, &new)), new);
        }
    }

    #[test]
    fn what_has_not_changed_is_not_said() {
        let old = json!({ "a": { "x": 1, "y": 2 }, "b": 3, "c": 4 });
        let new = json!({ "a": { "x": 1, "y": 5 }, "b": 3, "d": { "e": 6 } });
        assert_eq!(between(&old, &new), json!({ "a": { "y": 5 }, "c": null, "d": { "e": 6 } }));
        assert_eq!(between(&new, &new), json!({}));
    }
}
