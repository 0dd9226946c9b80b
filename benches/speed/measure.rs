//! Times in turns.

use crate::contenders::{Client, Contender, Program};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Times of one contender, over all its turns.
pub struct Times {
    /// Who.
    pub name: &'static str,
    /// Each exec in microseconds, a list for each turn.
    turns: Vec<Vec<f64>>,
}

impl Times {
    /// The time in microseconds under which a part of all execs stayed.
    pub fn quantile(&self, part: f64) -> f64 {
        quantile(self.turns.iter().flatten().copied().collect(), part)
    }

    /// The median of each turn.
    pub fn medians(&self) -> Vec<f64> {
        let turns = self.turns.iter();
        turns.map(|turn| quantile(turn.clone(), 0.5)).collect()
    }
}

/// The value under which a part of all lies.
pub fn quantile(mut all: Vec<f64>, part: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let index = (all.len() as f64 * part) as usize;
    all[index.min(all.len() - 1)]
}

/// How a row is measured.
#[derive(Clone, Copy)]
pub struct Plan {
    /// How often each has its turn.
    pub turns: usize,
    /// Execs in a turn.
    pub execs: usize,
    /// Between two of them.
    pub pause: Duration,
}

/// One exec after the other, each contender `turns` times.
pub fn latencies(contenders: &[&Contender], program: Program<'_>, plan: Plan) -> Vec<Times> {
    let mut all: Vec<(Client<'_>, Times)> = contenders
        .iter()
        .map(|contender| {
            let name = contender.name();
            let turns = Vec::new();
            (contender.client(), Times { name, turns })
        })
        .collect();
    for _ in 0..plan.turns {
        for (client, times) in &mut all {
            // What this one's own first exec after others' costs is no part of it.
            for _ in 0..3 {
                client.run(program);
            }
            let turn = (0..plan.execs).map(|_| {
                std::thread::sleep(plan.pause);
                let since = Instant::now();
                client.run(program);
                since.elapsed().as_secs_f64() * 1e6
            });
            times.turns.push(turn.collect());
        }
    }
    all.into_iter().map(|(_, times)| times).collect()
}

/// Execs per second of several clients at once, a figure for each turn of each contender.
pub fn rates(
    contenders: &[&Contender],
    program: Program<'_>,
    clients: usize,
    (turns, time): (usize, Duration),
) -> Vec<(&'static str, Vec<f64>)> {
    let mut all: Vec<(&'static str, Vec<f64>)> = contenders
        .iter()
        .map(|contender| (contender.name(), Vec::new()))
        .collect();
    for _ in 0..turns {
        for (contender, (_, rates)) in contenders.iter().zip(&mut all) {
            rates.push(rate(contender, program, clients, time));
        }
    }
    all
}

fn rate(contender: &Contender, program: Program<'_>, clients: usize, time: Duration) -> f64 {
    let (count, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = contender.client();
                while !done.load(Ordering::Relaxed) {
                    client.run(program);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Not the first moments, in which all connect at once.
        std::thread::sleep(time / 10);
        count.store(0, Ordering::Relaxed);
        let since = Instant::now();
        std::thread::sleep(time);
        let counted = count.load(Ordering::Relaxed) as f64 / since.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        counted
    })
}
