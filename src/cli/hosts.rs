//! `hallpass hosts`: what the service knows, what I hold there, and what I could ask for, with whose approval.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::escape;
use super::{Context, admin, render};
use crate::name::Target;
use crate::time::Timestamp;
use crate::wire;

/// The longest text to look for; no name or tag is longer.
const QUERY_BYTES_MAX: usize = 253;

/// Arguments of `hallpass hosts`.
#[derive(Clone, Debug, Args)]
pub(crate) struct HostsArgs {
    /// Only hosts with this in their name or in a tag
    #[arg(value_name = "QUERY", value_parser = parse_query)]
    query: Option<String>,
    /// Only hosts to which I hold access
    #[arg(long, conflicts_with = "requestable")]
    mine: bool,
    /// Only hosts for which I may ask
    #[arg(long)]
    requestable: bool,
    /// Only hosts with this tag
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_tag)]
    tag: Option<String>,
}

/// Letters of names and tags, so that it needs no escaping in a URL.
fn parse_query(text: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-=:/".contains(&b);
    if !text.is_empty() && text.len() <= QUERY_BYTES_MAX && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("look for letters, digits and . _ - = : /, as names and tags have them".to_owned())
}

/// A tag in the one spelling of targets.
fn parse_tag(text: &str) -> Result<String, String> {
    match Target::parse(&format!("tag:{text}")) {
        Ok(Target::Tag(key, value)) => Ok(format!("{key}={value}")),
        Ok(Target::Host(_)) => Err("a tag is KEY=VALUE".to_owned()),
        Err(why) => Err(why.to_string()),
    }
}

/// `hallpass hosts`.
pub(crate) fn run(context: &Context, args: &HostsArgs) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    let mut path = "/v1/hosts?ways=true".to_owned();
    if let Some(query) = &args.query {
        path.push_str(&format!("&text={query}"));
    }
    if let Some(tag) = &args.tag {
        path.push_str(&format!("&tag={}", tag.replace('+', "%2B")));
    }
    let (list, mine) = context.block_on(async {
        let list: wire::Hosts = client.get(&path).await?;
        let mine: wire::Requests = client.get("/v1/requests?mine=true&state=approved&state=issued&limit=1000").await?;
        Ok((list, mine))
    })?;
    if let Some(cache) = context.cache() {
        cache.keep_requests(&profile, &mine.requests);
        if args.query.is_none() && args.tag.is_none() && !list.is_cut {
            cache.keep_hosts(&list.hosts);
        }
    }
    let held = by_host(&mine.requests);
    let none = Vec::new();
    let mut rows: Vec<(&wire::Host, &Vec<&wire::Request>)> =
        list.hosts.iter().map(|host| (host, held.get(host.name.as_str()).unwrap_or(&none))).collect();
    rows.retain(|(host, held)| {
        let may_ask = host.ways.as_ref().is_some_and(|ways| !ways.is_empty());
        (!args.mine || !held.is_empty()) && (!args.requestable || may_ask)
    });
    let documents: Vec<Value> = rows.iter().map(|(host, held)| document(host, held)).collect();
    let document = json!({ "schema": "hallpass.hosts.v1", "hosts": documents, "is_cut": list.is_cut });
    let cells: Vec<[String; 3]> = rows.iter().map(|(host, held)| row(host, held, context.now())).collect();
    let text = if cells.is_empty() { "no hosts".to_owned() } else { render::columns(&cells) };
    context.out.answer(&document, &text)?;
    if list.is_cut {
        context.out.note("there are more hosts than one answer lists: name a part of the host, or a --tag");
    }
    Ok(())
}

/// What I hold, by host.
fn by_host(requests: &[wire::Request]) -> BTreeMap<&str, Vec<&wire::Request>> {
    let mut held: BTreeMap<&str, Vec<&wire::Request>> = BTreeMap::new();
    for request in requests {
        for host in &request.hosts {
            held.entry(host.as_str()).or_default().push(request);
        }
    }
    held
}

fn document(host: &wire::Host, held: &[&wire::Request]) -> Value {
    let held: Vec<Value> = held
        .iter()
        .map(|request| {
            let until = request.window.as_ref().map(|window| &window.not_after);
            json!({ "id": request.id, "account": request.account, "until": until })
        })
        .collect();
    let mut document = json!({
        "name": host.name, "tags": host.tags, "is_enrolled": host.is_enrolled, "held": held, "ways": host.ways,
    });
    if let (Value::Object(members), Some(seen)) = (&mut document, &host.seen) {
        members.insert("seen".to_owned(), json!(seen));
    }
    document
}

/// Name, tags, and what is possible: what is held first.
fn row(host: &wire::Host, held: &[&wire::Request], now: Timestamp) -> [String; 3] {
    let mut says: Vec<String> = held
        .iter()
        .map(|request| {
            let until =
                request.window.as_ref().map(|window| format!(" until {}", render::until(&window.not_after, now)));
            format!("held as {}{} ({})", escape(&request.account), until.unwrap_or_default(), escape(&request.id))
        })
        .collect();
    let ways = host.ways.iter().flatten();
    says.extend(ways.filter(|way| held.iter().all(|request| request.account != way.account)).map(said));
    if says.is_empty() {
        says.push("nothing that you may ask for now".to_owned());
    }
    says.extend(host.seen.as_ref().map(admin::seen));
    let says = says.join("; ");
    [escape(&host.name), render::joined(&host.tags), says]
}

/// `as deploy up to 1h, with 1 of group:sre`.
fn said(way: &wire::Way) -> String {
    let needs: Vec<String> = way.needs.iter().map(|n| format!("{} of {}", n.need, render::joined(&n.from))).collect();
    let how = if needs.is_empty() { "at once".to_owned() } else { format!("with {}", needs.join(" and ")) };
    format!("as {} up to {}, {how}", escape(&way.account), escape(&way.longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_tags_are_words_of_names() {
        for good in ["web", "role=web", "10.0", "team:ops"] {
            parse_query(good).unwrap();
        }
        for bad in ["", "a b", "a&b", "a%b", "é", "#x"] {
            parse_query(bad).unwrap_err();
        }
        assert_eq!(parse_tag("role=web").unwrap(), "role=web");
        for bad in ["role", "role=", "=web", "Role=web&x"] {
            parse_tag(bad).unwrap_err();
        }
    }
}
