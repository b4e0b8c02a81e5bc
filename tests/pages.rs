//! Pages of the repository: every link between them leads somewhere, and every page is in the book.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The book's pages by path below the repository.
fn pages() -> Vec<PathBuf> {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    links(&summary).into_iter().map(|link| Path::new("docs").join(link)).collect()
}

/// Targets of links to other pages of a text, code left out.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        let prose: String = line.split('`').step_by(2).collect();
        for rest in prose.split("](").skip(1).filter(|_| !is_code) {
            let target = rest.split(')').next().unwrap();
            if !target.contains("://") {
                links.push(target.to_owned());
            }
        }
    }
    links
}

/// How a heading is named in links to it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let page = root().join(page);
        for link in links(&std::fs::read_to_string(&page).unwrap()) {
            let (path, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let to = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(to.exists(), "{}: {link}", page.display());
            if !fragment.is_empty() {
                let text = std::fs::read_to_string(&to).unwrap();
                let named = format!("id=\"{fragment}\"");
                let is_there = text.lines().any(|l| l.contains(&named) || l.starts_with('#') && anchor(l) == fragment);
                assert!(is_there, "{}: {link}", page.display());
            }
        }
    }
}

#[test]
fn every_page_is_in_the_book() {
    let book: Vec<PathBuf> = pages().iter().map(|page| root().join(page).canonicalize().unwrap()).collect();
    for folder in ["docs", "docs/howto", "docs/reference"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let is_page = path.extension().is_some_and(|e| e == "md") && !path.ends_with("SUMMARY.md");
            assert!(
                !is_page || book.contains(&path.canonicalize().unwrap()),
                "{} is not in docs/SUMMARY.md",
                path.display()
            );
        }
    }
}
