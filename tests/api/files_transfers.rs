//! Large files, small runtimes, files that change and clients that vanish.

use crate::needs;
use crate::support::files::{begin, head, must_write, pattern, uri};
use crate::support::procs::growth;
use crate::support::{
    Runtime, alone, api, bound, eventually, in_uids, runtime, runtime_with, server,
};
use serde_json::json;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;

const MIB: usize = 1 << 20;

/// PUT of a file, so many mebibytes of one block, without having it in memory.
fn upload(runtime: &Runtime, path: &str, mib: usize, block: &[u8]) -> u16 {
    let headers = format!("Content-Length: {}\r\n", mib * MIB);
    let mut stream = begin(api(), "PUT", &uri(runtime, path), &headers);
    for _ in 0..mib {
        stream.write_all(block).expect("send a block");
    }
    crate::support::files::answer(stream).status
}

/// GET of such a file; how many of its blocks came whole and in order.
fn download(runtime: &Runtime, path: &str, block: &[u8]) -> usize {
    let mut reader = BufReader::new(begin(api(), "GET", &uri(runtime, path), ""));
    assert_eq!(head(&mut reader).status, 200);
    let mut buffer = vec![0; block.len()];
    let mut blocks = 0;
    while reader.read_exact(&mut buffer).is_ok() {
        assert!(buffer == block, "block {blocks} changed on the way");
        blocks += 1;
    }
    blocks
}

#[test]
fn a_large_file_leaves_memory_flat_in_both_directions() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let block = pattern(MIB);
    upload(&runtime, "warm", 4, &block);
    download(&runtime, "warm", &block);
    let mib = 256;
    let grown = growth(server(), || {
        assert_eq!(upload(&runtime, "large", mib, &block), 204);
    });
    assert!(grown < 16 << 20, "an upload took {grown} bytes");
    let grown = growth(server(), || {
        assert_eq!(download(&runtime, "large", &block), mib);
    });
    assert!(grown < 16 << 20, "a download took {grown} bytes");
}

#[test]
fn the_smallest_runtime_takes_a_large_file() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime_with(json!({
        "resources": {"requests": {"memory_mib": 16}, "limits": {"memory_mib": 16}},
        "limits": {"disk_mib": 256},
    }));
    let block = pattern(MIB);
    assert_eq!(upload(&runtime, "large", 160, &block), 204);
    assert_eq!(download(&runtime, "large", &block), 160);
    // Over one that is there already.
    runtime.sh("rm large").assert_code(0);
    assert_eq!(upload(&runtime, "large", 100, &block), 204);
    assert_eq!(upload(&runtime, "large", 100, &block), 204);
    runtime.sh("stat -c %s large").assert_stdout("104857600\n");
}

/// A download that has begun and of which only the head was read.
fn begun(runtime: &Runtime, path: &str) -> BufReader<TcpStream> {
    let mut reader = BufReader::with_capacity(1, begin(api(), "GET", &uri(runtime, path), ""));
    assert_eq!(head(&mut reader).status, 200);
    reader
}

#[test]
fn a_file_that_shrinks_meanwhile_breaks_the_connection() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    // More than all buffers on the way hold.
    runtime.sh("head -c 64M /dev/zero > file").assert_code(0);
    let mut reader = begun(&runtime, "file");
    runtime.sh("truncate -s 1000 file").assert_code(0);
    let start = std::time::Instant::now();
    let mut body = Vec::new();
    let _ = reader.read_to_end(&mut body);
    assert!(body.len() < 64 * MIB, "all of it came");
    assert!(start.elapsed() < bound(10_000), "{:?}", start.elapsed());
    runtime.sh("stat -c %s file").assert_stdout("1000\n");
}

#[test]
fn a_file_that_grows_meanwhile_is_as_long_as_announced() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("head -c 32M /dev/zero > file").assert_code(0);
    let mut reader = begun(&runtime, "file");
    runtime
        .sh("head -c 32M /dev/zero | tr '\\0' x >> file")
        .assert_code(0);
    let mut body = Vec::new();
    reader.read_to_end(&mut body).expect("read to the end");
    assert_eq!(body.len(), 32 * MIB);
    assert!(body.iter().all(|byte| *byte == 0));
}

#[test]
fn a_file_that_is_replaced_meanwhile_comes_whole() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("head -c 32M /dev/zero > file").assert_code(0);
    let mut reader = begun(&runtime, "file");
    must_write(api(), &runtime, "file", b"another");
    let mut body = Vec::new();
    reader.read_to_end(&mut body).expect("read to the end");
    assert!(body.len() == 32 * MIB && body.iter().all(|byte| *byte == 0));
}

#[test]
fn a_vanished_client_takes_its_cell_with_it() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    let uids = runtime.host_uids();
    runtime.sh("truncate -s 500M large").assert_code(0);
    let reader = begun(&runtime, "large");
    assert!(!in_uids(&uids).is_empty(), "nothing sends");
    drop(reader);
    let gone = || in_uids(&uids).is_empty();
    assert!(eventually(bound(500), gone), "the reading cell is left");

    let mut stream = begin(
        api(),
        "PUT",
        &uri(&runtime, "x"),
        "Content-Length: 1000\r\n",
    );
    stream.write_all(b"x").expect("send a byte");
    let busy = || !in_uids(&uids).is_empty();
    assert!(eventually(bound(5_000), busy), "nothing receives");
    drop(stream);
    assert!(eventually(bound(500), gone), "the writing cell is left");
    runtime.sh("ls -A").assert_stdout("large\n");
}

#[test]
fn deleting_the_runtime_ends_its_transfers() {
    needs!(Root);
    let _turn = alone();
    let runtime = runtime();
    runtime.sh("truncate -s 500M large").assert_code(0);
    let mut reader = begun(&runtime, "large");
    let mut stream = begin(
        api(),
        "PUT",
        &uri(&runtime, "x"),
        "Content-Length: 1000\r\n",
    );
    stream.write_all(b"x").expect("send a byte");
    api()
        .delete(&format!("/v1/runtimes/{}", runtime.id))
        .data(200);
    let mut body = Vec::new();
    let _ = reader.read_to_end(&mut body);
    assert!(body.len() < 500 * MIB, "all of it came");
    // The upload hears of it when it goes on.
    let _ = stream.write_all(&[b'x'; 999]);
    let answer = crate::support::files::answer(stream);
    assert_eq!(answer.status, 409, "{answer:?}");
}
