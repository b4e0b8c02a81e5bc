//! Downloads against a small local server that speaks as much of the Hub as the client asks for.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::{Folder, TINY, command, experiment};
use pgn_bench::data::hub::{Kind, Pinned};
use pgn_bench::files::sha256;

const REVISION: &str = "0b2714987fa478483af9968de7c934580d0bb9a2";

/// Serves `body` for every path.
fn serve(body: &'static [u8]) -> String {
    serve_each(move |_| (body.to_vec(), "tag".to_owned()))
}

/// Answers each request, given its lines, over a connection of its own; returns the endpoint.
fn listen(answer: impl Fn(&[String]) -> Vec<u8> + Send + Sync + 'static) -> String {
    let answer = Arc::new(answer);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let answer = answer.clone();
            std::thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let request: Vec<String> = lines.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
                let _ = stream.write_all(&answer(&request));
            });
        }
    });
    endpoint
}

fn path_of(request: &[String]) -> &str {
    request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default()
}

/// The part of a body that a request asks for.
fn part(request: &[String], body: &[u8], tag: &str) -> Vec<u8> {
    let mut range = (0, body.len() - 1);
    for line in request {
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
    [header.as_bytes(), part].concat()
}

/// Serves the body and ETag of each path, in ranges; returns the endpoint.
fn serve_each(content: impl Fn(&str) -> (Vec<u8>, String) + Send + Sync + 'static) -> String {
    listen(move |request| {
        let (body, tag) = content(path_of(request));
        part(request, &body, &tag)
    })
}

/// What the Hub says of a repository with these files.
fn listing(files: &[&str]) -> Vec<u8> {
    let siblings: Vec<_> = files.iter().map(|file| serde_json::json!({"rfilename": file})).collect();
    serde_json::json!({"sha": REVISION, "siblings": siblings}).to_string().into_bytes()
}

const PARTS: [&str; 2] = ["data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"];

/// `fetch celebahq` from an endpoint: exit code, and what it printed.
fn fetch(home: &Folder, endpoint: &str) -> (Option<i32>, String) {
    let output = command(&home.0, &["fetch", "celebahq"])
        .envs([("HF_ENDPOINT", endpoint), ("HF_TOKEN", TOKEN), ("NO_PROXY", "*")])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

const TOKEN: &str = "hf_secret";

/// Whether a file below a folder holds the token.
fn leaked(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let within = |path: PathBuf| match path.is_dir() {
        true => leaked(&path),
        false => vec![path.clone()]
            .into_iter()
            .filter(|p| std::fs::read(p).unwrap().windows(TOKEN.len()).any(|w| w == TOKEN.as_bytes()))
            .collect(),
    };
    entries.flat_map(within).collect()
}

#[test]
fn no_token_is_sent_anywhere() {
    let home = Folder::new("hub-token");
    std::fs::create_dir_all(home.join("hf")).unwrap();
    std::fs::write(home.join("hf/token"), TOKEN).unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    // Another host, as the Hub's stores are.
    let store = listen(move |request| {
        seen.lock().unwrap().extend_from_slice(request);
        part(request, path_of(request).strip_prefix('/').unwrap().as_bytes(), "store")
    });
    let store = store.replace("127.0.0.1", "localhost");
    let seen = requests.clone();
    let hub = listen(move |request| {
        seen.lock().unwrap().extend_from_slice(request);
        match PARTS.iter().find(|part| path_of(request).ends_with(*part)) {
            None => part(request, &listing(&PARTS), "list"),
            Some(part) => format!(
                "HTTP/1.1 302 Found\r\nLocation: {store}/{part}\r\nETag: \"{}\"\r\nX-Repo-Commit: {REVISION}\r\n\
                 Content-Length: 0\r\nConnection: close\r\n\r\n",
                sha256(part.as_bytes())
            )
            .into_bytes(),
        }
    });
    let (code, printed) = fetch(&home, &hub);
    assert!(code == Some(0) && !printed.contains(TOKEN), "{printed}");
    let requests = requests.lock().unwrap();
    assert!(requests.iter().filter(|l| l.to_lowercase().starts_with("host: localhost")).count() >= 2);
    assert!(!requests.iter().any(|l| l.to_lowercase().starts_with("authorization") || l.contains(TOKEN)));
    assert_eq!(leaked(&home.0), [home.join("hf/token")]);
}

#[test]
fn names_that_leave_the_repository_are_refused() {
    let home = Folder::new("hub-names");
    for name in ["data/train-x/../../../../../../pwned/train-00000-of-00001.parquet", "data/train-/../x"] {
        let (code, printed) = fetch(&home, &serve_each(|_| (listing(&[name]), "list".to_owned())));
        assert!(code == Some(2) && printed.contains("no path inside it"), "{printed}");
        assert!(!home.join("hf/hub").exists());
    }
}

#[test]
fn without_a_sha256_no_file_of_a_listing_is_taken() {
    let home = Folder::new("hub-tag");
    let of = |path: &str| if path.contains("/api/") { listing(&PARTS) } else { b"whatever".to_vec() };
    let (code, printed) = fetch(&home, &serve_each(move |path| (of(path), "tag".to_owned())));
    assert!(code == Some(2) && printed.contains("does not keep it under its SHA-256"), "{printed}");
}

#[test]
fn odd_answers_are_errors() {
    let home = Folder::new("hub-odd");
    let (code, printed) = fetch(
        &home,
        &listen(|request| match path_of(request).contains("/api/") {
            true => part(request, &listing(&PARTS), "list"),
            // A redirect to nowhere.
            false => format!(
                "HTTP/1.1 302 Found\r\nETag: \"x\"\r\nX-Repo-Commit: {REVISION}\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
            )
            .into_bytes(),
        }),
    );
    assert!(code == Some(2) && printed.contains("cannot download") && !printed.contains("panicked"), "{printed}");
}

#[test]
fn what_the_cache_holds_is_checked_before_it_is_decoded() {
    let home = Folder::new("hub-cache");
    let run = |dataset: &str| {
        let file = home.write("experiment.yaml", &TINY.replace("shapes", dataset));
        let output = command(&home.0, &experiment(&file, &home.join("out"), &[])).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let snapshot = |repo: &str, revision: &str, part: &str| {
        let path = home.join("hf/hub").join(repo).join("snapshots").join(revision).join(part);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    // A download that was killed before its check: one file's digest is pinned, the other's is its name.
    let split = "plain_text/train-00000-of-00001.parquet";
    let pinned = snapshot("datasets--uoft-cs--cifar10", REVISION, split);
    let test = snapshot("datasets--uoft-cs--cifar10", REVISION, &split.replace("train", "test"));
    std::fs::write(&pinned, "half").unwrap();
    std::fs::write(&test, "half").unwrap();
    let (code, stderr) = run("cifar10");
    assert!(code == Some(2) && stderr.contains("sha256 is") && stderr.contains("the file was removed"), "{stderr}");
    assert!(!pinned.exists() && test.exists());

    let repo = "datasets--korexyz--celeba-hq-256x256";
    let blob = home.join("hf/hub").join(repo).join("blobs").join("0".repeat(64));
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    std::fs::write(&blob, "half").unwrap();
    let [listed, second] = PARTS.map(|part| snapshot(repo, "42078a1fb27b6079eaab8cf453efd3d79a8b7bda", part));
    std::os::unix::fs::symlink(&blob, &listed).unwrap();
    let (code, stderr) = run("celebahq");
    assert!(code == Some(2) && stderr.contains("celebahq is not on this machine"), "half of it is not it: {stderr}");
    std::fs::write(&second, "half").unwrap();
    let (code, stderr) = run("celebahq");
    assert!(code == Some(2) && stderr.contains("sha256 is") && !listed.exists() && !blob.exists(), "{stderr}");
    std::fs::write(&listed, "whatever").unwrap();
    let (code, stderr) = run("celebahq");
    assert!(code == Some(2) && stderr.contains("does not keep it under its SHA-256"), "{stderr}");
}

#[test]
fn a_set_of_files_is_downloaded_whole_and_checked() {
    let home = Folder::new("hub-set");
    let parts = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
    let listing = listing(&[parts[0], parts[1], "README.md"]);
    let serving = |damaged: bool| {
        let listing = listing.clone();
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
    let (code, stderr) = fetch(&home, &serving(true));
    assert!(code == Some(2) && stderr.contains("sha256 is") && stderr.contains("the file was removed"), "{stderr}");
    // The other set of the data set is not there.
    let (code, stderr) = fetch(&home, &serving(false));
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
fn weights_are_fetched_from_their_revisions_and_checked() {
    let fetch = |home: &Folder, what: &str, endpoint: &str| {
        let output = command(&home.0, &["fetch", what])
            .envs([("HF_ENDPOINT", endpoint), ("NO_PROXY", "*")])
            .env_remove("HF_HUB_OFFLINE")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (what, repository, revision, file) in [
        ("dinov2", "facebook/dinov2-large", "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c", "model.safetensors"),
        ("dinov2-base", "facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415", "model.safetensors"),
        ("dinov2-small", "facebook/dinov2-small", "ed25f3a31f01632728cabb09d1542f84ab7b0056", "model.safetensors"),
        ("clip", "openai/clip-vit-large-patch14-336", "ce19dc912ca5cd21c8a653c79e251e808ccabcd1", "pytorch_model.bin"),
    ] {
        let home = Folder::new(&format!("hub-{what}"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let hub = serve_each(move |path| {
            seen.lock().unwrap().push(path.to_owned());
            (b"other weights".to_vec(), "tag".to_owned())
        });
        let (code, stderr) = fetch(&home, what, &hub);
        assert!(code == Some(2) && stderr.contains("sha256 is") && stderr.contains("the file was removed"), "{stderr}");
        let path = format!("/{repository}/resolve/{revision}/{file}");
        assert!(asked.lock().unwrap().iter().all(|asked| *asked == path), "{asked:?}");
        let snapshots =
            home.join("hf/hub").join(format!("models--{}", repository.replace('/', "--"))).join("snapshots");
        assert!(!snapshots.join(revision).join(file).exists());

        let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let (code, stderr) = fetch(&home, what, &listen(move |_| gone.into()));
        assert!(code == Some(2) && stderr.contains("cannot download") && stderr.contains("404"), "{stderr}");
        // Half of the bytes, and the connection ends.
        let cut = listen(|request| {
            let whole = part(request, &[7; 4096], "tag");
            let ask_for_size = request.iter().any(|line| line.to_lowercase().contains("bytes=0-0"));
            if ask_for_size { whole } else { whole[..whole.len() / 2].to_vec() }
        });
        let (code, stderr) = fetch(&home, what, &cut);
        assert!(code == Some(2) && !snapshots.join(revision).join(file).exists(), "{stderr}");
    }
    let home = Folder::new("hub-weights");
    let output = command(&home.0, &["fetch", "clip"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("HF_HUB_OFFLINE is set"), "{stderr}");
    let args = ["fid", "shapes:train", "shapes:test", "--extractor", "dinov2"];
    let (revision, file) = ("47b73eefe95e8d44ec3623f8890bd894b6ea2d6c", "model.safetensors");
    let cached = home.join("hf/hub/models--facebook--dinov2-large/snapshots").join(revision);
    std::fs::create_dir_all(&cached).unwrap();
    std::fs::write(cached.join(file), "half").unwrap();
    let stderr = String::from_utf8(command(&home.0, &args).output().unwrap().stderr).unwrap();
    assert!(stderr.contains("sha256 is") && !cached.join(file).exists(), "what the cache has is checked: {stderr}");
}

#[test]
fn fetch_refuses_wrong_bytes_and_an_offline_hub() {
    let home = Folder::new("fetch");
    let output = command(&home.0, &["fetch", "cifar10"]).env("HF_ENDPOINT", serve(b"not cifar")).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("sha256 is"), "{stderr}");

    // The words for yes that huggingface_hub has; any other one is a no.
    for (word, off) in
        [("1", true), ("on", true), ("Yes", true), ("TRUE", true), ("no", false), ("2", false), ("", false)]
    {
        let mut fetch = command(&home.0, &["fetch", "cifar10"]);
        let output = fetch.env("HF_HUB_OFFLINE", word).env("HF_ENDPOINT", "http://127.0.0.1:9").output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let expected = if off { "HF_HUB_OFFLINE is set" } else { "cannot download" };
        assert!(output.status.code() == Some(2) && stderr.contains(expected), "{word}: {stderr}");
    }

    let output = command(&home.0, &["fetch", "cifar10"])
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("HF_TOKEN", "hf_secret")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("cannot download"), "{stderr}");
    assert!(!stderr.contains("hf_secret"));
}
