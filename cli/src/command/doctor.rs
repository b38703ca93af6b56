//! `ucp doctor [PATH]`: what this kernel and a file system can do, and which way a copy would go.

use std::io;
use std::num::NonZero;
use std::thread;

use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;
use ucp_engine::copy::{self, Findings, Forecast, Options, Trial};
use ucp_engine::limits::TREE_SHARDS_MAX;
use ucp_engine::processor::Configuration;
use ucp_engine::units::Bytes;

use crate::args::DoctorArguments;
use crate::exit::ExitStatus;
use crate::report::{complain_of, print_whole};
use crate::{json, quote, sandbox};

/// Looks, and says what was found.
pub(crate) fn run(arguments: &DoctorArguments) -> ExitStatus {
    let options = Options::default();
    match copy::doctor(&arguments.path, &options, &Configuration::default()) {
        Ok(findings) => {
            let machine = Machine::look();
            let text = match arguments.json {
                true => json::line(&Line::of(&findings, &machine, &options)) + "\n",
                false => tell(&findings, &machine, &options),
            };
            print_whole(&mut io::stdout(), text.as_bytes())
        }
        Err(error) => {
            complain_of(&error);
            ExitStatus::SomeFailed
        }
    }
}

/// What the process has of the machine.
#[derive(Clone, Copy, Debug)]
struct Machine {
    cores: usize,
    /// None: no limit.
    locked_memory_bytes: Option<u64>,
    open_files: Option<u64>,
    /// The version of Landlock that the kernel has; none if it is not there or not on.
    landlock_abi: Option<i32>,
}

impl Machine {
    fn look() -> Self {
        let limit = |resource| {
            let (soft, _) = getrlimit(resource).ok()?;
            (soft != nix::sys::resource::RLIM_INFINITY).then_some(soft)
        };
        Self {
            cores: thread::available_parallelism().map_or(1, NonZero::get),
            locked_memory_bytes: limit(Resource::RLIMIT_MEMLOCK),
            open_files: limit(Resource::RLIMIT_NOFILE),
            landlock_abi: sandbox::kernel_abi(),
        }
    }

    fn shards_max(self) -> usize {
        TREE_SHARDS_MAX.max(self.cores)
    }
}

fn tell(findings: &Findings, machine: &Machine, options: &Options) -> String {
    let mut text = String::new();
    let mut row = |what: &str, is: String| text.push_str(&format!("{what:22}{is}\n"));
    row("kernel", findings.kernel.clone().unwrap_or_else(|| "not told".to_owned()));
    row("engine", findings.engine.to_string());
    if !findings.engine.features.is_empty() {
        row("ring", findings.engine.features.join(" "));
        let registered = if findings.has_registered_buffers { "registered" } else { "plain" };
        row("block memory", registered.to_owned());
    }
    let unlimited = || "unlimited".to_owned();
    let locked = machine.locked_memory_bytes.map(|bytes| Bytes(bytes).to_string());
    row("memory to lock", locked.unwrap_or_else(unlimited));
    row("open files", machine.open_files.map_or_else(unlimited, |files| files.to_string()));
    let shards = format!("{} (up to {} shards for a tree)", machine.cores, machine.shards_max());
    row("cores", shards);
    let landlock = machine.landlock_abi.map(|abi| format!("version {abi} (--sandbox)"));
    row("Landlock", landlock.unwrap_or_else(|| "not there: no --sandbox".to_owned()));
    row("path", quote::if_needed(&findings.path));
    let (magic, free) = (findings.magic, Bytes(findings.available_bytes));
    row("file system", format!("{} ({magic:#x}), {free} free", findings.file_system));
    let (memory, offset) = findings.direct_alignment;
    row(
        "direct I/O alignment",
        match (memory, offset) {
            (0, 0) => "none told".to_owned(),
            _ => format!("memory {memory} B, offsets {offset} B"),
        },
    );
    if let Some(error) = &findings.obstacle {
        let why = format!("{} failed: {}", error.what(), error.reason());
        row("tried out", format!("nothing: {}", quote::without_controls(&why)));
    }
    for Trial { what, outcome } in &findings.trials {
        let answer = match outcome {
            Ok(()) => "works".to_owned(),
            Err(Some(errno)) => format!("refused ({errno:?})"),
            Err(None) => "does nothing".to_owned(),
        };
        row(what, answer);
    }
    let (small, large) = (options.small_bytes_max.into(), options.large_bytes_min);
    row("small files", format!("up to {}", Bytes(small)));
    row("large files", format!("from {}", Bytes(large)));
    let block = Bytes(options.block_bytes.into());
    row("in flight", format!("{} blocks of {block}", options.depth));
    text.push_str("\nA copy within this file system would go\n");
    for Forecast { file, path, reason } in &findings.forecasts {
        text.push_str(&format!("  {file:26}{path}, because {reason}\n"));
    }
    text
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    kernel: Option<&'a str>,
    engine: String,
    engine_reason: Option<&'a str>,
    ring_features: &'a [&'static str],
    registered_buffers: bool,
    locked_memory_bytes: Option<u64>,
    open_files: Option<u64>,
    cores: usize,
    shards_max: usize,
    landlock_abi: Option<i32>,
    #[serde(flatten)]
    path: json::NamedPath<'a>,
    file_system: &'static str,
    file_system_magic: u64,
    available_bytes: u64,
    direct_memory_alignment: u32,
    direct_offset_alignment: u32,
    obstacle: Option<String>,
    trials: Vec<TrialItem>,
    small_bytes_max: u32,
    large_bytes_min: u64,
    block_bytes: u32,
    depth: u32,
    forecasts: Vec<ForecastItem>,
}

#[derive(Serialize)]
struct TrialItem {
    what: &'static str,
    works: bool,
    errno: Option<json::ErrnoItem>,
}

#[derive(Serialize)]
struct ForecastItem {
    file: &'static str,
    data_path: &'static str,
    data_path_reason: &'static str,
}

impl<'a> Line<'a> {
    fn of(findings: &'a Findings, machine: &Machine, options: &Options) -> Self {
        Self {
            event: "doctor",
            kernel: findings.kernel.as_deref(),
            engine: findings.engine.engine.to_string(),
            engine_reason: findings.engine.reason.as_deref(),
            ring_features: &findings.engine.features,
            registered_buffers: findings.has_registered_buffers,
            locked_memory_bytes: machine.locked_memory_bytes,
            open_files: machine.open_files,
            cores: machine.cores,
            shards_max: machine.shards_max(),
            landlock_abi: machine.landlock_abi,
            path: json::NamedPath::of(Some(&findings.path)),
            file_system: findings.file_system,
            file_system_magic: findings.magic,
            available_bytes: findings.available_bytes,
            direct_memory_alignment: findings.direct_alignment.0,
            direct_offset_alignment: findings.direct_alignment.1,
            obstacle: findings.obstacle.as_ref().map(|error| error.reason()),
            trials: findings.trials.iter().map(TrialItem::of).collect(),
            small_bytes_max: options.small_bytes_max,
            large_bytes_min: options.large_bytes_min,
            block_bytes: options.block_bytes,
            depth: options.depth,
            forecasts: findings.forecasts.iter().map(ForecastItem::of).collect(),
        }
    }
}

impl TrialItem {
    fn of(trial: &Trial) -> Self {
        let errno = trial.outcome.err().flatten().map(json::errno);
        Self { what: trial.what, works: trial.outcome.is_ok(), errno }
    }
}

impl ForecastItem {
    fn of(forecast: &Forecast) -> Self {
        let (data_path, data_path_reason) = (forecast.path.name(), forecast.reason.name());
        Self { file: forecast.file, data_path, data_path_reason }
    }
}
