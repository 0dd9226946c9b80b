//! A command's time, which stands still while its runtime is paused.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Resolves when `timeout` has passed, not counting what passes while `paused` is true.
pub(crate) async fn time_is_up(timeout: Duration, mut paused: watch::Receiver<bool>) {
    let mut left = timeout;
    loop {
        // Nobody who could pause is left when the sender is gone.
        if paused.wait_for(|paused| !paused).await.is_err() {
            return sleep(left).await;
        }
        let since = Instant::now();
        let pause = async {
            if paused.wait_for(|paused| *paused).await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = sleep(left) => return,
            () = pause => left = left.saturating_sub(since.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_not_counted() {
        let paused = watch::Sender::new(false);
        let began = Instant::now();
        let up = tokio::spawn(time_is_up(Duration::from_secs(10), paused.subscribe()));
        sleep(Duration::from_secs(4)).await;
        paused.send_replace(true);
        sleep(Duration::from_secs(100)).await;
        assert!(!up.is_finished());
        paused.send_replace(false);
        up.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 110);
    }

    #[tokio::test(start_paused = true)]
    async fn time_runs_on_when_nobody_can_pause_any_more() {
        let began = Instant::now();
        let gone = watch::Sender::new(false).subscribe();
        time_is_up(Duration::from_secs(10), gone).await;
        assert_eq!(began.elapsed().as_secs(), 10);
    }
}
