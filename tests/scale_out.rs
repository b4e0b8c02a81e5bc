//! Many processes on one experiment: a pool on this machine, an array job on a Slurm cluster, and the runs of several folders
//! brought together. `tests/slurm/run.sh` starts a cluster for the second; without one it is skipped.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, TINY, command, experiment, run, timeless_rows};
use pgn_bench::results::{self, Row};

const PATIENCE: Duration = Duration::from_secs(900);

/// Twelve cells: six methods, two seeds.
fn twelve(steps: u64) -> String {
    TINY.replace("[pgn+cr]", "[none, wgan, sn, gn, pgn, gp0]")
        .replace("seeds: [0]", "seeds: [0, 1]")
        .replace("extractor: classifier", "extractor: classifier, metrics: [fid, is, kid, pr]")
        .replace("steps: 12", &format!("steps: {steps}"))
        .replace("every: 4", &format!("every: {}", steps / 3))
}

/// All rows of a results folder by run, without their times, which no two runs share.
fn rows(output: &Path) -> BTreeMap<PathBuf, Vec<Row>> {
    let of = |file: PathBuf| (file.strip_prefix(output).unwrap().to_owned(), timeless_rows(&file));
    results::find(output).unwrap().into_iter().map(of).collect()
}

/// Fails with the first row that differs.
fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (rows(one), rows(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (file, rows) in &one {
        let pair = rows.iter().zip(&other[file]).find(|(a, b)| a != b);
        assert!(pair.is_none(), "{}: {pair:#?}", file.display());
        assert_eq!(rows.len(), other[file].len(), "{}", file.display());
    }
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes that train this cell of this results folder.
fn trainers(output: &Path, cell: usize) -> Vec<i32> {
    let pattern = format!("run .*--output {} --device cpu --cell {cell}$", output.display());
    let out = Command::new("pgrep").args(["-f", &pattern]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().lines().map(|l| l.parse().unwrap()).collect()
}

fn kill(process: i32) {
    assert!(Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap().success());
}

#[test]
fn a_pool_survives_a_killed_task_and_its_own_end() {
    let home = Folder::new("pool");
    let file = home.write("tiny.yaml", &twelve(12));
    let (local, pooled) = (home.join("local"), home.join("pooled"));
    assert_eq!(run(&home.0, &experiment(&file, &local, &[])).0, 0);

    let submit = ["submit", file.to_str().unwrap(), "--scale", "smoke", "-o", pooled.to_str().unwrap(), "--jobs", "2"];
    let mut pool = command(&home.0, &submit).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the first task", || !trainers(&pooled, 0).is_empty());
    let (code, _, stderr) = run(&home.0, &submit);
    assert!(code == 2 && stderr.contains("another process works in it (process"), "{stderr}");
    trainers(&pooled, 0).into_iter().for_each(kill);
    wait_until("a third task", || pooled.join("tiny-smoke/cnn32-sn-s0/checkpoint.safetensors").is_file());
    let process = pool.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
    assert_eq!(pool.wait().unwrap().code(), Some(128 + 15));
    for cell in 0..12 {
        assert!(trainers(&pooled, cell).is_empty());
    }

    let (code, stdout, stderr) = run(&home.0, &submit);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("cells: 0 failed, 0 diverged"), "{stdout}");
    assert_same(&local, &pooled);
    let (code, stdout, _) = run(&home.0, &["status", pooled.to_str().unwrap()]);
    assert!(code == 0 && stdout.contains("12 of 12 cells have ended"), "{stdout}");
    let (code, stdout, _) = run(&home.0, &submit);
    assert!(code == 0 && stdout.contains("All 12 cells have ended"), "{stdout}");
}

#[test]
fn a_pool_hands_out_devices() {
    let home = Folder::new("devices");
    let file = home.write("tiny.yaml", &twelve(3));
    let output = home.join("out");
    let submit = |more: &[&str]| {
        let mut args = vec!["submit", file.to_str().unwrap(), "--scale", "smoke", "--only", "seed=0"];
        args.extend(["-o", output.to_str().unwrap(), "--jobs", "3"]);
        args.extend(more);
        run(&home.0, &args)
    };
    // None of these GPUs is here, which is found before the first task starts.
    let (code, _, stderr) = submit(&["--devices", "cuda:900,cuda:901"]);
    assert!(code == 2 && stderr.contains("--device cuda:900") && !output.exists(), "{stderr}");
    let (code, stdout, stderr) = submit(&["--devices", "cpu,cpu"]);
    assert!(code == 0 && stdout.contains("6 cells: 0 failed, 0 diverged"), "{stdout}{stderr}");
    let (code, stdout, _) = run(&home.0, &["status", output.to_str().unwrap()]);
    assert!(code == 0 && stdout.contains("6 of 6 cells have ended"), "{stdout}");
    assert_eq!(stdout.lines().filter(|line| line.split_whitespace().any(|word| word == "cpu")).count(), 6, "{stdout}");
}

#[test]
fn runs_of_several_folders_come_together() {
    let home = Folder::new("collect");
    let file = home.write("tiny.yaml", &twelve(6));
    let [whole, a, b, both] = ["whole", "a", "b", "both"].map(|name| home.join(name));
    assert_eq!(run(&home.0, &experiment(&file, &whole, &["--only", "seed=0"])).0, 0);
    assert_eq!(run(&home.0, &experiment(&file, &a, &["--only", "seed=0,method=gn"])).0, 0);
    for cell in ["0", "1", "2", "3", "4", "5"] {
        assert_eq!(run(&home.0, &experiment(&file, &b, &["--cell", cell])).0, 0);
    }
    let collect = |output: &Path, sources: &[&Path]| {
        let mut args = vec!["collect", "-o", output.to_str().unwrap()];
        args.extend(sources.iter().map(|s| s.to_str().unwrap()));
        run(&home.0, &args)
    };
    let (code, stdout, stderr) = collect(&both, &[&a, &b]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout.matches("copied").count(), 6, "{stdout}");
    assert_same(&whole, &both);
    // What was collected goes on like any other run.
    let (code, _, stderr) = run(&home.0, &experiment(&file, &both, &["--only", "seed=0", "--resume"]));
    assert_eq!(code, 0, "{stderr}");
    // What was measured after training comes along later, too, and adds to what was measured here.
    let gn = |results: &Path| results.join("tiny-smoke/cnn32-gn-s0");
    for (results, n) in [(&both, "110"), (&a, "120")] {
        let (code, _, stderr) = run(&home.0, &["eval", gn(results).to_str().unwrap(), "-n", n]);
        assert_eq!(code, 0, "{stderr}");
    }
    for is_new in [true, false] {
        let (code, stdout, stderr) = collect(&both, &[&a]);
        assert_eq!((code, stdout.contains("copied what was measured")), (0, is_new), "{stdout}{stderr}");
    }
    let measured = pgn_bench::results::read(&gn(&both).join("eval.parquet")).unwrap();
    assert!(["fid110", "fid120"].iter().all(|name| measured.iter().any(|r| r.metric.starts_with(name))));
    // Another configuration under the same name is refused, before anything is copied.
    let other = home.join("other");
    let changed = ["--only", "method=gn,seed=0", "--set", "train.critic_lr=1e-3"];
    assert_eq!(run(&home.0, &experiment(&file, &other, &changed)).0, 0);
    let (code, _, stderr) = collect(&both, &[&other]);
    assert!(code == 2 && stderr.contains("train.critic_lr: 0.0004, now 0.001"), "{stderr}");
    let fresh = home.join("fresh");
    let (code, _, stderr) = collect(&fresh, &[&a, &other]);
    assert!(code == 2 && stderr.contains("runs of one cell with different configurations"), "{stderr}");
    assert!(!fresh.exists());
    let (code, _, stderr) = collect(&both, &[&home.join("cache")]);
    assert!(code == 2 && stderr.contains("no runs in"), "{stderr}");
}

#[test]
fn a_job_is_printed_and_wrong_options_are_named() {
    let home = Folder::new("script");
    let file = home.write("tiny.yaml", &twelve(12));
    let output = home.join("out put");
    let submit = |more: &[&str]| {
        let mut args = vec!["submit", file.to_str().unwrap(), "--scale", "smoke", "-o", output.to_str().unwrap()];
        args.extend(more);
        run(&home.0, &args)
    };
    let options = ["--slurm", "--dry-run", "--partition", "gpu", "--array-limit", "4", "--sbatch=--exclusive"];
    let options = [&options[..], &["--device", "cuda", "--gpus", "1"]].concat();
    let (code, script, stderr) = submit(&options);
    assert_eq!(code, 0, "{stderr}");
    for part in [
        "#SBATCH --array=0-11%4\n",
        "#SBATCH --partition=gpu\n",
        "#SBATCH --gres=gpu:1\n",
        "#SBATCH --exclusive\n",
        "#SBATCH --requeue\n",
        "--signal=B:USR1@120\n",
        "/out put' --device cuda --cell \"$SLURM_ARRAY_TASK_ID\" &\n",
    ] {
        assert!(script.contains(part), "`{part}` is not in\n{script}");
    }
    let path = home.write("job.sh", &script);
    assert!(Command::new("bash").arg("-n").arg(path).status().unwrap().success());
    let (code, lines, stderr) = submit(&["--jobs", "4", "--dry-run", "--devices", "cuda:0,cuda:1", "--only", "seed=0"]);
    assert_eq!(code, 0, "{stderr}");
    let (ends, names): (Vec<_>, Vec<_>) =
        lines.lines().map(|line| line.rsplit_once("--device ").unwrap().1.split_once(" # ").unwrap()).unzip();
    let expected: Vec<_> = (0..6).map(|n| format!("cuda:{} --cell {n}", n % 2)).collect();
    assert_eq!(ends, expected);
    assert!(names.iter().all(|name| name.ends_with("-s0")) && script.contains(&format!("#   0 {}\n", names[0])));
    assert!(!output.exists());
    for (more, expected) in [
        (&["--dry-run"][..], "--slurm|--jobs"),
        (&["--jobs", "2", "--partition", "gpu"], "cannot be used with"),
        (&["--jobs", "0"], "0 is not in 1..=1024"),
        (&["--slurm", "--dry-run", "--sbatch=x\n#SBATCH y"], "no option for sbatch"),
        (&["--slurm", "--dry-run", "--set", "eval.extractor=inception"], "pgn-bench fetch inception"),
        (&["--slurm", "--dry-run", "--gpus", "1"], "the tasks compute on the cpu; add --device cuda"),
        (&["--jobs", "2", "--gpus", "1"], "cannot be used with"),
        (&["--slurm", "--devices", "cpu"], "cannot be used with"),
        (&["--jobs", "2", "--device", "cpu", "--devices", "cpu"], "cannot be used with"),
        (&["--jobs", "2", "--dry-run", "--devices", "cuda:0,gpu"], "expected cpu, cuda or cuda:N"),
        (&["--jobs", "2", "--dry-run", "--devices", "cpu,"], "expected cpu, cuda or cuda:N"),
        (&["--jobs", "2", "--dry-run", "--devices", "cpu,cuda"], "add --precision f32"),
    ] {
        let (code, _, stderr) = submit(more);
        assert!(code == 2 && stderr.contains(expected), "{more:?}: {stderr}");
    }
    let (code, _, stderr) = run(&home.0, &["status", home.0.to_str().unwrap()]);
    assert!(code == 2 && stderr.contains("no submission in"), "{stderr}");
    let (code, _, stderr) = run(&home.0, &experiment(&file, &output, &["--cell", "12"]));
    assert!(code == 2 && stderr.contains("--cell 12: there are 12 cells, from 0"), "{stderr}");
}

/// An array of twelve cells on two nodes: one task is killed, one is told that its time is nearly over, one node is drained, and all
/// finish with the rows of a local run.
#[test]
fn an_array_job_finishes_whatever_happens_to_it() {
    if std::env::var_os("SLURM_CONF").is_none() {
        eprintln!("SKIPPED: no Slurm cluster here (SLURM_CONF); tests/slurm/run.sh starts one");
        return;
    }
    let home = Folder::new("slurm");
    let file = home.write("tiny.yaml", &twelve(150));
    let (local, array) = (home.join("local"), home.join("array"));
    let start = Instant::now();
    assert_eq!(run(&home.0, &experiment(&file, &local, &[])).0, 0);
    eprintln!("locally: {:.0} s", start.elapsed().as_secs_f64());

    let submit = ["submit", file.to_str().unwrap(), "--scale", "smoke", "-o", array.to_str().unwrap(), "--slurm"];
    let start = Instant::now();
    let (code, stdout, stderr) = run(&home.0, &submit);
    assert_eq!(code, 0, "{stderr}");
    let job = stdout.split([' ', ':']).nth(1).unwrap().to_owned();
    let (code, _, stderr) = run(&home.0, &submit);
    assert!(code == 2 && stderr.contains("tasks in the queue"), "{stderr}");

    let slurm = |program: &str, args: &[&str]| {
        let out = Command::new(program).args(args).output().unwrap();
        assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let checkpoint = |cell: &str| array.join(format!("tiny-smoke/{cell}/checkpoint.safetensors"));
    wait_until("the first checkpoint", || checkpoint("cnn32-none-s0").is_file());
    trainers(&array, 0).into_iter().for_each(kill);
    wait_until("the third cell's checkpoint", || checkpoint("cnn32-sn-s0").is_file());
    slurm("scontrol", &["update", "NodeName=b", "State=DRAIN", "Reason=test"]);
    // What Slurm does at the end of a task's time: the signal goes to the batch shell alone, the trainer's parent.
    let (mut told, mut trainer) = (0, 0);
    wait_until("a task to tell that its time is nearly over", || {
        let begun = |cell: usize| {
            let method = ["none", "wgan", "sn", "gn", "pgn", "gp0"][cell % 6];
            checkpoint(&format!("cnn32-{method}-s{}", cell / 6)).is_file()
        };
        let found = (3..12).filter(|&cell| begun(cell)).find_map(|cell| Some((cell, *trainers(&array, cell).first()?)));
        (told, trainer) = found.unwrap_or_default();
        found.is_some()
    });
    let shell = Command::new("ps").args(["-o", "ppid=", "-p", &trainer.to_string()]).output().unwrap().stdout;
    let shell = String::from_utf8(shell).unwrap();
    assert!(Command::new("kill").args(["-USR1", shell.trim()]).status().unwrap().success());
    let status = || run(&home.0, &["status", array.to_str().unwrap()]).1;
    eprintln!("{}", status());
    wait_until("the end of all cells", || status().contains(&format!("Slurm job {job}: 12 of 12 cells have ended")));
    slurm("scontrol", &["update", "NodeName=b", "State=RESUME"]);
    eprintln!("as an array job: {:.0} s", start.elapsed().as_secs_f64());
    let log =
        |task: usize| std::fs::read_to_string(array.join(format!("tiny-smoke/submission/task-{task}.log"))).unwrap();
    assert!(log(0).contains("finished") && log(told).contains("it goes on with: "), "{}{}", log(0), log(told));
    assert_same(&local, &array);
}
