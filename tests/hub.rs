//! Downloads against a small local server that speaks as much of the Hub as the client asks for.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use common::{Folder, command};
use pgn_bench::data::hub::{Kind, Pinned};
use pgn_bench::files::sha256;

const REVISION: &str = "0b2714987fa478483af9968de7c934580d0bb9a2";

/// Serves `body` for every path.
fn serve(body: &'static [u8]) -> String {
    serve_each(move |_| (body.to_vec(), "tag".to_owned()))
}

/// Serves the body and ETag of each path, in ranges; returns the endpoint.
fn serve_each(content: impl Fn(&str) -> (Vec<u8>, String) + Send + Sync + 'static) -> String {
    let content = std::sync::Arc::new(content);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let content = content.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let request = lines.next().and_then(Result::ok).unwrap_or_default();
                let head = request.starts_with("HEAD");
                let (body, tag) = content(request.split(' ').nth(1).unwrap_or_default());
                let mut range = (0, body.len() - 1);
                for line in lines.map_while(Result::ok).take_while(|l| !l.is_empty()) {
                    if let Some(r) = line.to_lowercase().strip_prefix("range: bytes=") {
                        let (from, to) = r.trim().split_once('-').unwrap();
                        range = (from.parse().unwrap(), to.parse().unwrap_or(body.len() - 1).min(body.len() - 1));
                    }
                }
                let part = &body[range.0..=range.1];
                let header = format!(
                    "HTTP/1.1 206 Partial Content\r\nETag: \"{tag}\"\r\nX-Repo-Commit: {REVISION}\r\nAccept-Ranges: bytes\r\n\
                     Content-Range: bytes {}-{}/{}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    range.0,
                    range.1,
                    body.len(),
                    part.len()
                );
                let _ = stream.write_all(header.as_bytes());
                if !head {
                    let _ = stream.write_all(part);
                }
            });
        }
    });
    endpoint
}

#[test]
fn a_set_of_files_is_downloaded_whole_and_checked() {
    let home = Folder::new("hub-set");
    let parts = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
    let listing = serde_json::json!({
        "sha": REVISION,
        "siblings": [{"rfilename": parts[0]}, {"rfilename": parts[1]}, {"rfilename": "README.md"}],
    });
    let serving = |damaged: bool| {
        let listing = listing.to_string().into_bytes();
        serve_each(move |path| {
            let name = path.rsplit("/data/").next().unwrap_or_default().as_bytes().to_vec();
            if path.contains("/api/") {
                (listing.clone(), "list".to_owned())
            } else {
                let hash = sha256(&name);
                (if damaged { b"other".to_vec() } else { name }, hash)
            }
        })
    };
    // Through the command line, so that each has an environment of its own.
    let fetch = |endpoint: &str| {
        let output = command(&home.0, &["fetch", "celebahq"]).env("HF_ENDPOINT", endpoint).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) = fetch(&serving(true));
    assert!(code == Some(2) && stderr.contains("sha256 is") && stderr.contains("the file was removed"), "{stderr}");
    // The other set of the data set is not there.
    let (code, stderr) = fetch(&serving(false));
    assert!(code == Some(2) && stderr.contains("has no whole set of files data/validation-"), "{stderr}");
    let snapshots = home.join("hf/hub/datasets--korexyz--celeba-hq-256x256/snapshots");
    let revision = std::fs::read_dir(&snapshots).unwrap().next().unwrap().unwrap().path();
    for part in parts {
        assert_eq!(std::fs::read(revision.join(part)).unwrap(), part.strip_prefix("data/").unwrap().as_bytes());
    }
    assert!(!revision.join("README.md").exists());
}

#[test]
fn a_file_is_downloaded_once_and_checked() {
    let home = Folder::new("hub");
    let body = b"what the hub holds";
    // SAFETY: no other thread of this test reads the environment yet.
    unsafe {
        std::env::set_var("HF_HOME", home.join("hf"));
        std::env::set_var("HF_ENDPOINT", serve(body));
        std::env::remove_var("HF_HUB_OFFLINE");
    }
    let right: &'static str = sha256(body).leak();
    let pinned = Pinned { repo: "o/n", kind: Kind::Dataset, revision: REVISION, file: "a/b.bin", sha256: right };
    assert!(pinned.cached().is_none());
    let path = pinned.fetch().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), body);
    assert_eq!(pinned.cached(), Some(path.clone()));
    assert!(path.ends_with(format!("hub/datasets--o--n/snapshots/{REVISION}/a/b.bin")), "{}", path.display());

    let wrong = Pinned { sha256: "00", ..pinned };
    let error = wrong.fetch().unwrap_err().to_string();
    assert!(error.contains("sha256 is") && error.contains("expected 00"), "{error}");
    assert!(!path.exists(), "a file that fails its check must not stay under its name");
}

#[test]
fn fetch_refuses_wrong_bytes_and_an_offline_hub() {
    let home = Folder::new("fetch");
    let output = command(&home.0, &["fetch", "cifar10"]).env("HF_ENDPOINT", serve(b"not cifar")).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("sha256 is"), "{stderr}");

    let output = command(&home.0, &["fetch", "cifar10"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("HF_HUB_OFFLINE is set"), "{stderr}");

    let output = command(&home.0, &["fetch", "cifar10"])
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("HF_TOKEN", "hf_secret")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("cannot download"), "{stderr}");
    assert!(!stderr.contains("hf_secret"));
}
