//! A thousand kills. Clients of all kinds keep a server busy while its processes are killed at random moments. However
//! that goes: every request ends, what was answered is true afterwards, nothing ran twice, and nothing is left.
//!
//! `CELLBLOCK_TEST_KILLS` says how many kills (few by default), `CELLBLOCK_TEST_SEED` repeats the choices of a run; what
//! they meet is the scheduler's.

mod calls;
mod execs;
mod killer;
mod ledger;
mod random;
mod streams;
mod things;
mod verdict;

use crate::needs;
use crate::support::leaks::Counts;
use crate::support::server::Options;
use crate::support::timing::Raise;
use crate::support::{Server, alone, bound, times};
use calls::Client;
use killer::{Row, Victim, strike};
use ledger::Ledger;
use random::Random;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text}: {error}")),
    )
}

/// The runtimes that clients share.
fn shared(server: &Server) {
    let make = |name: &str, body: Value| {
        let mut body = body;
        body["name"] = name.into();
        server.api.post("/v1/runtimes", &body).data(200);
    };
    make(execs::SHARED, json!({"limits": {"disk_mib": 256}}));
    make(execs::FLEETING, json!({"filesystem": "ephemeral"}));
    make(things::SOURCE, json!({"limits": {"disk_mib": 16}}));
    make(things::CHANGING, json!({"limits": {"disk_mib": 16}}));
    let body = json!({"command": "echo kept > /root/kept; sync"});
    server
        .api
        .post(&execs::path(things::SOURCE), &body)
        .data(200);
}

/// A short load that nobody disturbs: whatever is made on first use is made by it. Everything is deleted again.
fn quiet_round(server: &Server, seed: u64) {
    let (ledger, over) = (Ledger::new(), AtomicBool::new(false));
    shared(server);
    let mut contents = Vec::new();
    std::thread::scope(|scope| {
        let files = clients(scope, server, &ledger, &over, seed);
        std::thread::sleep(Duration::from_secs(3));
        over.store(true, Ordering::Relaxed);
        contents.extend(
            files
                .into_iter()
                .map(|client| client.join().expect("no panic")),
        );
    });
    let client = client("verdict", 0, server, &ledger, &over, seed);
    verdict::judge(&client, contents);
    let wrong = std::mem::take(&mut ledger.pages().wrong);
    assert!(wrong.is_empty(), "without any kill: {wrong:#?}");
}

/// The runtime that stays is mounted since the first start, and after a restart since its first command.
fn mount_example(server: &Server) {
    let body = json!({"command": "true"});
    server.api.post(&execs::path("example"), &body).data(200);
}

fn client<'a>(
    who: &'static str,
    number: u64,
    server: &Server,
    ledger: &'a Ledger,
    over: &'a AtomicBool,
    seed: u64,
) -> Client<'a> {
    let api = server.api.clone();
    let random = Random::new(seed, number + 1);
    Client {
        who,
        number,
        api,
        ledger,
        over,
        random,
    }
}

/// Starts all clients. Those that write files tell what these may hold.
fn clients<'s, 'e>(
    scope: &'s std::thread::Scope<'s, 'e>,
    server: &Server,
    ledger: &'e Ledger,
    over: &'e AtomicBool,
    seed: u64,
) -> Vec<std::thread::ScopedJoinHandle<'s, things::Contents>> {
    type Work = for<'a> fn(Client<'a>);
    let kinds: [(&'static str, Work); 12] = [
        ("plain", execs::plain),
        ("plain", execs::plain),
        ("once", execs::once),
        ("once", execs::once),
        ("detached", execs::detached),
        ("lists", execs::lists),
        ("websocket", streams::websockets),
        ("events", streams::events),
        ("runtimes", things::runtimes),
        ("runtimes", things::runtimes),
        ("checkpoints", things::checkpoints),
        ("life", things::life),
    ];
    for (number, (who, work)) in (0..).zip(kinds) {
        let client = client(who, number, server, ledger, over, seed);
        scope.spawn(move || work(client));
    }
    let files = |number| {
        let client = client("files", number, server, ledger, over, seed);
        scope.spawn(move || things::files(client))
    };
    (12..14).map(files).collect()
}

/// Kills until it was so often, and gives the server that is left.
fn kill_all(mut server: Server, kills: u64, ledger: &Ledger, random: &mut Random) -> Server {
    let (mut api, mut warden) = (Row::new(), Row::new());
    let mut done = 0;
    while done < kills {
        std::thread::sleep(random.millis(900));
        let victim = Victim::choose(random);
        let bears = match victim {
            Victim::Api => api.bears_one_more(),
            Victim::Warden => warden.bears_one_more(),
            _ => true,
        };
        if !bears {
            continue;
        }
        // Before it happens: the first answer of its doing may come at once.
        ledger.killed(victim.name());
        if !strike(&server, victim, random) {
            ledger.pages().kills.pop();
            continue;
        }
        done += 1;
        if victim == Victim::Supervisor {
            server = server.restart();
            (api, warden) = (Row::new(), Row::new());
        }
        if done % 50 == 0 {
            say(&format!(
                "{done} kills, {} mistakes\n",
                ledger.pages().wrong.len()
            ));
        }
    }
    server
}

/// Straight to the descriptor: the harness keeps back what a test prints.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[test]
fn whatever_is_killed_every_answer_stays_true() {
    needs!(Root);
    let _turn = alone();
    let kills = from_environment("CELLBLOCK_TEST_KILLS").unwrap_or_else(|| times(40) as u64);
    let seed = from_environment("CELLBLOCK_TEST_SEED").unwrap_or_else(|| {
        let micros = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        micros.expect("after 1970").as_micros() as u64
    });
    say(&format!("{kills} kills; CELLBLOCK_TEST_SEED={seed}\n"));
    let server = Server::start(Options::default());
    quiet_round(&server, seed);
    mount_example(&server);
    let before = Counts::at_rest(&server, bound(20_000));
    shared(&server);

    let (ledger, over) = (Ledger::new(), AtomicBool::new(false));
    let mut random = Random::new(seed, 0);
    let (began, mut contents) = (Instant::now(), Vec::new());
    let server = std::thread::scope(|scope| {
        let files = clients(scope, &server, &ledger, &over, seed);
        let end = Raise(&over);
        let server = kill_all(server, kills, &ledger, &mut random);
        drop(end);
        contents.extend(
            files
                .into_iter()
                .map(|client| client.join().expect("no panic")),
        );
        server
    });
    let took = began.elapsed();
    let client = client("verdict", 0, &server, &ledger, &over, seed);
    let found = verdict::judge(&client, contents);
    totals(&ledger, &found, took, seed);
    quiet_round(&server, seed);
    mount_example(&server);
    before.assert_again(|| Counts::of(&server));
    let wrong = std::mem::take(&mut ledger.pages().wrong);
    assert!(wrong.is_empty(), "{} mistakes: {wrong:#?}", wrong.len());
}

fn totals(ledger: &Ledger, found: &verdict::Found, took: Duration, seed: u64) {
    let pages = ledger.pages();
    let mut kills = std::collections::BTreeMap::new();
    for (kind, _) in &pages.kills {
        *kills.entry(*kind).or_insert(0) += 1;
    }
    let requests: u64 = pages.results.values().sum();
    let mut text = format!("seed {seed}, {} s\nkilled", took.as_secs());
    for (kind, count) in &kills {
        text += &format!("  {kind} {count}");
    }
    text += &format!(
        "  in all {}\n{requests} requests and what came of them\n",
        pages.kills.len()
    );
    for ((who, result), count) in &pages.results {
        text += &format!("  {who:<12} {result:<60} {count:>7}\n");
    }
    text += &format!(
        "records by outcome: {:?}\nrecords that went with the last moment before a kill: {}\nkeys: {:?}\n\
         runtimes and checkpoints left, used and deleted: {}\nmistakes: {}\n",
        found.outcomes,
        found.lost_in_last_moment,
        found.keys,
        found.things,
        pages.wrong.len()
    );
    say(&text);
}
