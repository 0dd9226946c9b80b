//! Tests of admission, with the clock stopped: waits end by the rules, not by luck.

use super::*;

fn bounds() -> ExecBounds {
    ExecBounds {
        max_execs: 3,
        max_execs_per_runtime: 2,
        max_queue: 1,
        max_queue_per_runtime: 1,
        queue_secs: 5,
        default_timeout_secs: 1,
        max_timeout_secs: 1,
        default_output_bytes: 0,
        max_output_bytes: 0,
        max_detached_output_bytes: 64 << 20,
        max_buffered_bytes: 10 * UNIT,
        max_buffered_bytes_per_runtime: 8 * UNIT,
    }
}

fn runtime(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

#[tokio::test(start_paused = true)]
async fn a_full_runtime_is_busy_and_another_is_not() {
    let admission = Admission::new(bounds());
    let _held = [
        admission.admit(runtime(1), 0).await.unwrap(),
        admission.admit(runtime(1), 0).await.unwrap(),
    ];
    assert_eq!(
        admission.admit(runtime(1), 0).await.unwrap_err(),
        AdmissionError::RuntimeBusy
    );
    let _third = admission.admit(runtime(2), 0).await.unwrap();
    assert_eq!(admission.running(), 3);
    assert_eq!(
        admission.admit(runtime(3), 0).await.unwrap_err(),
        AdmissionError::ServerBusy
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_the_next_free_place() {
    let admission = Admission::new(bounds());
    let first = admission.admit(runtime(1), 0).await.unwrap();
    let _second = admission.admit(runtime(1), 0).await.unwrap();
    let waiting = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(runtime(1), 0).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_refuses_at_once() {
    let admission = Admission::new(bounds());
    let _held = [
        admission.admit(runtime(1), 0).await.unwrap(),
        admission.admit(runtime(1), 0).await.unwrap(),
    ];
    let waiting = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(runtime(1), 0).await }
    });
    tokio::task::yield_now().await;
    let before = tokio::time::Instant::now();
    assert_eq!(
        admission.admit(runtime(1), 0).await.unwrap_err(),
        AdmissionError::RuntimeBusy
    );
    assert_eq!(before.elapsed(), Duration::ZERO);
    // The one in the queue waits its time and no longer.
    assert_eq!(
        waiting.await.unwrap().unwrap_err(),
        AdmissionError::RuntimeBusy
    );
    assert_eq!(before.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_like_slots() {
    let admission = Admission::new(bounds());
    let held = admission.admit(runtime(1), 8 * UNIT).await.unwrap();
    assert_eq!(
        admission.admit(runtime(1), 1).await.unwrap_err(),
        AdmissionError::RuntimeBusy
    );
    assert_eq!(
        admission.admit(runtime(2), 3 * UNIT).await.unwrap_err(),
        AdmissionError::ServerBusy
    );
    let _fits = admission.admit(runtime(2), 2 * UNIT).await.unwrap();
    let asked = 8 * UNIT + 1;
    let never = admission.admit(runtime(3), asked).await.unwrap_err();
    assert_eq!(
        never,
        AdmissionError::NeverFits {
            asked,
            most: 8 * UNIT
        }
    );
    drop(held);
    admission.admit(runtime(1), 8 * UNIT).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_ended_command_gives_its_slot_back_and_keeps_its_memory() {
    let admission = Admission::new(bounds());
    let reservation = admission.admit(runtime(1), 8 * UNIT).await.unwrap().ended();
    assert_eq!(admission.running(), 0);
    assert_eq!(
        admission.admit(runtime(1), UNIT).await.unwrap_err(),
        AdmissionError::RuntimeBusy
    );
    drop(reservation);
    admission.admit(runtime(1), 8 * UNIT).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_ends_the_waits_and_admits_nobody() {
    let admission = Admission::new(bounds());
    let _held = [
        admission.admit(runtime(1), 0).await.unwrap(),
        admission.admit(runtime(1), 0).await.unwrap(),
    ];
    let waiting = tokio::spawn({
        let admission = admission.clone();
        async move { admission.admit(runtime(1), 0).await }
    });
    tokio::task::yield_now().await;
    admission.close();
    assert_eq!(waiting.await.unwrap().unwrap_err(), AdmissionError::Closed);
    assert_eq!(
        admission.admit(runtime(2), 0).await.unwrap_err(),
        AdmissionError::Closed
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_runtime_costs_nothing() {
    let admission = Admission::new(bounds());
    for n in 0..100 {
        admission.admit(runtime(n), UNIT).await.unwrap();
    }
    assert!(admission.gates().is_empty());
    let a = admission.admit(runtime(1), 0).await.unwrap();
    let b = admission.admit(runtime(1), 0).await.unwrap();
    drop(a);
    assert_eq!(admission.gates().len(), 1);
    drop(b);
    assert!(admission.gates().is_empty());
}
