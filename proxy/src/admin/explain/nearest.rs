//! Which route would almost have taken a request, where none does.

use crate::admin::words::{self, Values};
use crate::routes::{RouteTable, Unmet, path_of};
use ringway_config::model::Route;
use ringway_http1::{Authority, RequestHead};

/// The route that asks for least beside what the request has, and what that is. The first of several that ask for as much.
pub(super) fn nearest(
    routes: &[Route],
    (buffer, head): (&[u8], &RequestHead),
    secure: bool,
    values: Values,
) -> Option<String> {
    let unmet = |route: &Route| RouteTable::unmet(route, buffer, head, secure);
    // A host decides more than a path, a path more than what else is asked for.
    let weight = |unmet: &Unmet| match unmet {
        Unmet::Host => 100,
        Unmet::Path => 10,
        Unmet::Method | Unmet::Header(_) => 1,
    };
    let far = |route: &Route| unmet(route).iter().map(weight).sum::<u32>();
    let (index, route) = routes.iter().enumerate().min_by_key(|(_, route)| far(route))?;
    let wants: Vec<String> = unmet(route).into_iter().map(|unmet| wish(route, unmet, (buffer, head), values)).collect();
    Some(format!("route {} ({}) wants {}", index + 1, words::route(route, values), wants.join(", and ")))
}

/// What the route wants, and what the request has.
fn wish(route: &Route, unmet: Unmet, (buffer, head): (&[u8], &RequestHead), values: Values) -> String {
    let (wanted, has) = match unmet {
        Unmet::Host => {
            let host = Authority::new(head.authority.of(buffer)).host();
            (route.host.as_ref().map(|host| format!("host {}", words::host(host))), words::text(host))
        }
        Unmet::Path => {
            (route.path.as_ref().map(|path| format!("path {}", words::path(path))), words::text(path_of(buffer, head)))
        }
        Unmet::Method => (Some(route.methods.join(" or ")), words::text(head.method_span.of(buffer))),
        Unmet::Header(index) => {
            let header = &route.headers[index];
            let has: Vec<String> = head.values_of(buffer, header.name.as_bytes()).map(words::text).collect();
            let has = if has.is_empty() { "nothing".to_owned() } else { has.join(" and ") };
            (Some(words::header(header, values)), has)
        }
    };
    format!("{}, and this has {has}", wanted.unwrap_or_default())
}
