use super::*;
use crate::files::FileError;
use nix::errno::Errno;
use uuid::Uuid;

/// Errors of runtimes that stand for something a program may wait for or change.
fn of_runtimes() -> Vec<RuntimeError> {
    let name = || "a".to_owned();
    let warden = |failure| RuntimeError::Warden {
        operation: "starting a runtime",
        source: WardenError::Refused(failure),
    };
    vec![
        RuntimeError::Exists(name()),
        RuntimeError::NotRunning {
            name: name(),
            status: "paused",
        },
        RuntimeError::Impossible {
            name: name(),
            what: "paused",
            status: "shutdown",
        },
        RuntimeError::StillCreating(name()),
        RuntimeError::ProfileGone,
        RuntimeError::Busy(name()),
        RuntimeError::NotReady {
            id: Uuid::nil(),
            state: "creating",
        },
        RuntimeError::CheckpointBusy(Uuid::nil()),
        RuntimeError::NothingToKeep {
            name: name(),
            filesystem: "ephemeral",
        },
        RuntimeError::NoRoom(16),
        warden(Failure::UnknownImage),
        warden(Failure::UnknownProfile),
        warden(Failure::BadImage("of its size".into())),
        warden(Failure::Paused),
        warden(Failure::Busy(Busy::Memory)),
        warden(Failure::Busy(Busy::Operation)),
        warden(Failure::Busy(Busy::Processes)),
        warden(Failure::NoRoom("descriptors".into())),
        warden(Failure::Killed),
        RuntimeError::Warden {
            operation: "starting a runtime",
            source: WardenError::Lost,
        },
    ]
}

fn reason(error: &ApiError) -> &str {
    let reason = error.details.get("reason").and_then(Value::as_str);
    reason.unwrap_or_default()
}

#[test]
fn what_a_program_may_wait_for_or_change_has_a_reason() {
    for error in of_runtimes() {
        let said = error.to_string();
        let error = ApiError::from(error);
        assert!(error.code.asks_for_reason(), "{said}: {error:?}");
        assert_ne!(reason(&error), "", "{said}");
    }
}

#[test]
fn a_file_of_a_runtime_whose_status_changed_meanwhile_is_told_so() {
    // Whatever stands in the way of a runtime stands in that of its files.
    for (error, same) in of_runtimes().into_iter().zip(of_runtimes()) {
        let direct = ApiError::from(same);
        let error = ApiError::of_file(FileError::Runtime(error), "/file");
        assert_eq!(reason(&error), reason(&direct));
    }
    let paused = FileError::Start(WardenError::Refused(Failure::Paused));
    let paused = ApiError::of_file(paused, "/file");
    assert_eq!(
        (paused.status.as_u16(), reason(&paused)),
        (409, "not_running")
    );
    let held = FileError::Refused {
        writing: true,
        refusal: crate::cell::file::Refusal::Kernel(Errno::ETXTBSY),
    };
    assert_eq!(reason(&ApiError::of_file(held, "/file")), "busy");
}

#[test]
#[should_panic(expected = "without a reason")]
fn one_without_a_reason_is_a_mistake_of_ours() {
    let _ = ApiError::new(Code::FailedPrecondition, "not now");
}
