use super::*;
use crate::api::error::Code;
use http_body_util::BodyExt;
use tokio::sync::oneshot;

fn id() -> RequestId {
    RequestId("the id".into(), std::time::Instant::now())
}

async fn after(secs: u64, result: Result<Answer, ApiError>) -> Result<Answer, ApiError> {
    sleep(Duration::from_secs(secs)).await;
    result
}

/// Each piece of a body with the second that it came in.
async fn pieces(response: Response, began: Instant) -> Vec<(u64, String)> {
    let mut body = response.into_body();
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        let bytes = frame.unwrap().into_data().unwrap();
        let text = String::from_utf8(bytes.into()).unwrap();
        pieces.push((began.elapsed().as_secs(), text));
    }
    pieces
}

#[tokio::test(start_paused = true)]
async fn what_is_in_time_is_answered_whole() {
    let began = Instant::now();
    let answer = after(9, Ok(Answer::text("{}".into())));
    let response = reply(answer, began + PATIENCE, id()).await.unwrap();
    assert_eq!(pieces(response, began).await, [(9, "{}".into())]);
    let error = after(9, Err(ApiError::new(Code::NotFound, "gone")));
    assert!(reply(error, Instant::now() + PATIENCE, id()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_late_begins_with_spaces() {
    let began = Instant::now();
    let answer = after(22, Ok(Answer::text("{}".into())));
    let response = reply(answer, began + PATIENCE, id()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), began.elapsed().as_secs()),
        (200, 10)
    );
    let expected = [(10, " "), (15, " "), (20, " "), (22, "{}")];
    let expected = expected.map(|(at, text)| (at, text.to_owned()));
    assert_eq!(pieces(response, began).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_late_error_is_the_body_of_its_answer() {
    let began = Instant::now();
    let error = after(
        12,
        Err(ApiError::with_reason(Code::Unavailable, "busy", "broken")),
    );
    let response = reply(error, began + PATIENCE, id()).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let pieces = pieces(response, began).await;
    assert_eq!(pieces[0], (10, " ".to_owned()));
    let body: serde_json::Value = serde_json::from_str(&pieces[1].1).unwrap();
    assert_eq!((pieces.len(), pieces[1].0), (2, 12));
    assert_eq!(
        (&body["error"]["code"], &body["request_id"]),
        (&"unavailable".into(), &"the id".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_the_wait() {
    let (waiting, ended) = oneshot::channel::<()>();
    let answer = async move {
        let _waiting = waiting;
        std::future::pending().await
    };
    let response = reply(answer, Instant::now() + PATIENCE, id())
        .await
        .unwrap();
    let left = Instant::now();
    drop(response);
    assert!(ended.await.is_err());
    assert!(left.elapsed() < Duration::from_millis(100));
}
