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
async fn a_paused_command_gives_its_place_to_others() {
    let admission = Admission::new(bounds());
    let paused = watch::Sender::new(false);
    let mut commands = Vec::new();
    for n in [1, 1, 2] {
        let mut permit = admission.admit(runtime(n), 0).await.unwrap();
        let (still, paused) = (permit.still(), paused.subscribe());
        let task = tokio::spawn(async move {
            permit.during(paused, std::future::pending::<()>()).await;
        });
        commands.push((task, still));
    }
    let still = |n: usize, commands: &[(_, watch::Receiver<bool>)]| *commands[n].1.borrow();
    assert_eq!(admission.running(), 3);
    paused.send_replace(true);
    tokio::time::sleep(Duration::from_millis(1)).await;
    // Two may be parked. The third one keeps its place, and pays with its time.
    assert_eq!(admission.running(), 1);
    assert_eq!((0..3).filter(|n| still(*n, &commands)).count(), 2);
    let other = admission.admit(runtime(3), 0).await.unwrap();
    let another = admission.admit(runtime(3), 0).await.unwrap();
    // They go on at once, and get the next places.
    paused.send_replace(false);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((0..3).filter(|n| still(*n, &commands)).count(), 0);
    drop((other, another));
    assert_eq!(
        admission.admit(runtime(4), 0).await.unwrap_err(),
        AdmissionError::ServerBusy
    );
    assert_eq!(admission.parking.available_permits(), 2);
    // Paused again while it waits for its place, it is parked still.
    paused.send_replace(true);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let others = [
        admission.admit(runtime(5), 0).await.unwrap(),
        admission.admit(runtime(5), 0).await.unwrap(),
    ];
    for value in [false, true] {
        paused.send_replace(value);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(admission.parking.available_permits(), 0);
    }
    assert_eq!((0..3).filter(|n| still(*n, &commands)).count(), 2);
    drop(others);
    for (task, _) in commands {
        task.abort();
        let _ = task.await;
    }
    assert_eq!(
        (admission.running(), admission.parking.available_permits()),
        (0, 2)
    );
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
