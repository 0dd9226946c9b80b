use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_boundary_splits_no_character(bytes in prop::collection::vec(prop_oneof![
        Just(0xf0u8), Just(0x9f), Just(0x98), Just(0x80), Just(0xc3), Just(b'a'), any::<u8>()
    ], 4..40), at in 4usize..40) {
        let at = boundary(&bytes, at.min(bytes.len()));
        let decode = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        prop_assert_eq!(decode(&bytes[..at]) + &decode(&bytes[at..]), decode(&bytes));
        prop_assert!(at > 0);
    }

    #[test]
    fn a_file_is_cut_where_memory_is(bytes in prop::collection::vec(prop_oneof![
        Just(0xf0u8), Just(0x9f), Just(0x98), Just(0x80), Just(0xc3), Just(b'a'), any::<u8>()
    ], 0..12)) {
        let [memory, file] = both(&bytes).map(|kept| Output::new(kept, true).unwrap().length());
        prop_assert_eq!(memory, cut(&bytes, true).len() as u64);
        prop_assert_eq!(file, memory);
    }
}

fn both(bytes: &[u8]) -> [Kept; 2] {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    let length = bytes.len() as u64;
    [
        Kept::Memory(Bytes::copy_from_slice(bytes)),
        Kept::File(Arc::new(file), length),
    ]
}

fn report(stdout: usize, stderr: usize) -> Report {
    Report {
        exit_code: Some(3),
        stdout_bytes: Some(stdout as u64),
        stderr_bytes: Some(stderr as u64),
        stdout_kept: stdout as u64,
        stderr_kept: stderr as u64,
        ..Report::default()
    }
}

#[test]
fn pieces_make_the_whole_from_memory_and_from_files() {
    let text = "é\"\\\n\u{1}😀".repeat(PIECE / 4);
    let errors = "x".repeat(PIECE);
    for encoding in [OutputEncoding::Utf8, OutputEncoding::Base64] {
        let report = report(text.len(), errors.len());
        let id = Uuid::now_v7();
        let wholes = both(text.as_bytes())
            .into_iter()
            .zip(both(errors.as_bytes()));
        let answers = wholes.map(|(stdout, stderr)| {
            Answer::new(id, "exited", &report, [stdout, stderr], encoding, None).unwrap()
        });
        let bodies: Vec<Vec<u8>> = answers
            .map(|answer| {
                let pieces: io::Result<Vec<Bytes>> = Pieces::of(answer).collect();
                pieces.unwrap().concat()
            })
            .collect();
        assert!(bodies[0] == bodies[1], "memory and file differ");
        let read: serde_json::Value = serde_json::from_slice(&bodies[0]).unwrap();
        let expected = |text: &String| match encoding {
            OutputEncoding::Utf8 => text.clone(),
            OutputEncoding::Base64 => BASE64_STANDARD.encode(text),
        };
        assert!(read["data"]["stdout"] == expected(&text));
        assert!(read["data"]["stderr"] == expected(&errors));
        assert_eq!(read["data"]["exit_code"], 3);
    }
}

#[test]
fn an_answer_without_output_is_whole() {
    let outputs = [Kept::Memory(Bytes::new()), Kept::Memory(Bytes::new())];
    let answer = Answer::new(
        Uuid::now_v7(),
        "exited",
        &report(0, 0),
        outputs,
        OutputEncoding::Utf8,
        None,
    );
    let pieces: io::Result<Vec<Bytes>> = Pieces::of(answer.unwrap()).collect();
    let read: serde_json::Value = serde_json::from_slice(&pieces.unwrap().concat()).unwrap();
    assert_eq!(
        (&read["data"]["stdout"], &read["data"]["stderr"]),
        (&"".into(), &"".into())
    );
}
