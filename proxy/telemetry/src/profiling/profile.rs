//! Sampled stacks → `perftools.profiles.Profile`, the message that `go tool pprof` reads. Pure.
#![cfg_attr(not(feature = "profiling"), allow(dead_code))]

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;

/// What was sampled.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    pub(super) stacks: Vec<Stack>,
    /// Since 1970.
    pub(super) started: Duration,
    pub(super) length: Duration,
    /// Samples per second of CPU time.
    pub(super) frequency: i32,
    /// `/proc/self/maps`.
    pub(super) maps: String,
}

/// One stack as the handler saw it: itself first, the thread's start last.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    pub(super) addresses: Vec<u64>,
    pub(super) count: i64,
}

/// A function at an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) line: i64,
}

/// The signal handler's name; what it interrupted comes two frames further, after the return from the signal.
const HANDLER: &str = "perf_signal_handler";
/// The handler's frames in a build without names: it has one or two, then the return from the signal.
const MAX_HANDLER_FRAMES: usize = 3;

/// Encodes; `functions` names an address, innermost inlined function first, or gives nothing.
pub(super) fn encode(samples: &Samples, mut functions: impl FnMut(u64) -> Vec<Function>) -> Vec<u8> {
    let mut table = Table::new(&samples.maps);
    let skip = handler_frames(&samples.stacks, &mut functions);
    let period = 1_000_000_000 / i64::from(samples.frequency.max(1));
    let types = [table.value_type("samples", "count"), table.value_type("cpu", "nanoseconds")];
    let mut encoded = Vec::with_capacity(samples.stacks.len());
    for stack in &samples.stacks {
        let addresses = stack.addresses.get(skip..).unwrap_or_default();
        // The interrupted instruction, then return addresses, which are one call too far.
        let addresses = addresses.iter().enumerate().map(|(n, address)| address.saturating_sub(u64::from(n > 0)));
        let location_id: Vec<u64> = addresses.map(|address| table.location(address, &mut functions)).collect();
        if !location_id.is_empty() {
            encoded.push(proto::Sample { location_id, value: vec![stack.count, stack.count * period] });
        }
    }
    let profile = proto::Profile {
        sample_type: types.to_vec(),
        sample: encoded,
        mapping: table.mappings,
        location: table.locations,
        function: table.functions,
        string_table: table.strings,
        time_nanos: i64::try_from(samples.started.as_nanos()).unwrap_or(0),
        duration_nanos: i64::try_from(samples.length.as_nanos()).unwrap_or(0),
        period_type: types.last().copied(),
        period,
    };
    profile.encode_to_vec()
}

/// How many frames of each stack are the sampler's own. By name if there are names; else what all stacks begin with.
fn handler_frames(stacks: &[Stack], functions: &mut impl FnMut(u64) -> Vec<Function>) -> usize {
    let Some((first, others)) = stacks.split_first() else { return 0 };
    let handler = first
        .addresses
        .iter()
        .position(|address| functions(address.saturating_sub(1)).iter().any(|function| function.name == HANDLER));
    if let Some(handler) = handler {
        return handler + 2;
    }
    let same = |n: usize| others.iter().all(|stack| stack.addresses.get(n) == first.addresses.get(n));
    let least = first.addresses.len().saturating_sub(1);
    (0..MAX_HANDLER_FRAMES.min(least)).take_while(|n| same(*n)).count()
}

/// Everything a profile refers to by number, each once.
struct Table {
    strings: Vec<String>,
    string_ids: HashMap<String, i64>,
    mappings: Vec<proto::Mapping>,
    locations: Vec<proto::Location>,
    location_ids: HashMap<u64, u64>,
    functions: Vec<proto::Function>,
    function_ids: HashMap<(String, String), u64>,
}

impl Table {
    fn new(maps: &str) -> Self {
        let mut table = Self {
            strings: Vec::new(),
            string_ids: HashMap::new(),
            mappings: Vec::new(),
            locations: Vec::new(),
            location_ids: HashMap::new(),
            functions: Vec::new(),
            function_ids: HashMap::new(),
        };
        table.string(""); // the format wants it first
        for (start, limit, offset, file) in maps.lines().filter_map(executable) {
            let filename = table.string(file);
            table.mappings.push(proto::Mapping {
                id: table.mappings.len() as u64 + 1,
                memory_start: start,
                memory_limit: limit,
                file_offset: offset,
                filename,
                has_functions: false,
            });
        }
        table
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(id) = self.string_ids.get(text) {
            return *id;
        }
        let id = i64::try_from(self.strings.len()).unwrap_or(i64::MAX);
        self.strings.push(text.to_string());
        self.string_ids.insert(text.to_string(), id);
        id
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> proto::ValueType {
        proto::ValueType { kind: self.string(kind), unit: self.string(unit) }
    }

    fn location(&mut self, address: u64, functions: &mut impl FnMut(u64) -> Vec<Function>) -> u64 {
        if let Some(id) = self.location_ids.get(&address) {
            return *id;
        }
        let found = functions(address);
        let line: Vec<proto::Line> = found
            .into_iter()
            .map(|function| proto::Line { line: function.line, function_id: self.function(function) })
            .collect();
        let inside = |mapping: &&mut proto::Mapping| (mapping.memory_start..mapping.memory_limit).contains(&address);
        let mapping = self.mappings.iter_mut().find(inside);
        let mapping_id = mapping.map_or(0, |mapping| {
            mapping.has_functions |= !line.is_empty();
            mapping.id
        });
        let id = self.locations.len() as u64 + 1;
        self.locations.push(proto::Location { id, mapping_id, address, line });
        self.location_ids.insert(address, id);
        id
    }

    fn function(&mut self, function: Function) -> u64 {
        let key = (function.name, function.file);
        if let Some(id) = self.function_ids.get(&key) {
            return *id;
        }
        let id = self.functions.len() as u64 + 1;
        let (name, filename) = (self.string(&key.0), self.string(&key.1));
        self.functions.push(proto::Function { id, name, system_name: name, filename });
        self.function_ids.insert(key, id);
        id
    }
}

/// Start, limit, offset and file of an executable line of `/proc/self/maps`.
fn executable(line: &str) -> Option<(u64, u64, u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
    let file = words.nth(2)?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (start, limit) = range.split_once('-')?;
    let executable = rights.contains('x') && file.starts_with('/');
    executable.then_some((hex(start)?, hex(limit)?, hex(offset)?, file))
}

/// The part of `profile.proto` that is written here.
mod proto {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub(super) sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub(super) sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(super) mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub(super) location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub(super) function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub(super) string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        pub(super) time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub(super) duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub(super) period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub(super) period: i64,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub(super) struct ValueType {
        #[prost(int64, tag = "1")]
        pub(super) kind: i64,
        #[prost(int64, tag = "2")]
        pub(super) unit: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub(super) location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub(super) value: Vec<i64>,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub(super) struct Mapping {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(uint64, tag = "2")]
        pub(super) memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub(super) memory_limit: u64,
        #[prost(uint64, tag = "4")]
        pub(super) file_offset: u64,
        #[prost(int64, tag = "5")]
        pub(super) filename: i64,
        #[prost(bool, tag = "7")]
        pub(super) has_functions: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Location {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(uint64, tag = "2")]
        pub(super) mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub(super) address: u64,
        #[prost(message, repeated, tag = "4")]
        pub(super) line: Vec<Line>,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub(super) struct Line {
        #[prost(uint64, tag = "1")]
        pub(super) function_id: u64,
        #[prost(int64, tag = "2")]
        pub(super) line: i64,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub(super) struct Function {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(int64, tag = "2")]
        pub(super) name: i64,
        #[prost(int64, tag = "3")]
        pub(super) system_name: i64,
        #[prost(int64, tag = "4")]
        pub(super) filename: i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "1000-2000 r-xp 00000400 fe:01 12 /bin/queue-proxy\n2000-3000 rw-p 00001400 fe:01 12 /bin/queue-proxy\n\
                        5000-6000 r-xp 00000000 00:00 0 \n7000-8000 r-xp 00000000 00:00 0 [vdso]\n";

    fn samples(stacks: &[(&[u64], i64)]) -> Samples {
        let stacks = stacks.iter().map(|(addresses, count)| Stack { addresses: addresses.to_vec(), count: *count });
        Samples {
            stacks: stacks.collect(),
            started: Duration::from_secs(7),
            length: Duration::from_secs(1),
            frequency: 100,
            maps: MAPS.into(),
        }
    }

    fn named(address: u64) -> Vec<Function> {
        let function = |name: &str| Function { name: name.into(), file: "f.rs".into(), line: 3 };
        match address {
            0x10 | 0x0f => vec![function("walk"), function(HANDLER)],
            0x1100 => vec![function("inlined"), function("leaf")],
            0x11ff => vec![function("main")],
            _ => Vec::new(),
        }
    }

    /// Each sample as the names or addresses of its lines, leaf first.
    fn read(bytes: &[u8]) -> Vec<(Vec<String>, i64, i64)> {
        let profile = proto::Profile::decode(bytes).unwrap();
        let text = |id: i64| profile.string_table[usize::try_from(id).unwrap()].clone();
        let lines = |id: &u64| {
            let location = &profile.location[usize::try_from(id - 1).unwrap()];
            let name = |line: &proto::Line| text(profile.function[usize::try_from(line.function_id - 1).unwrap()].name);
            let names: Vec<String> = location.line.iter().map(name).collect();
            if names.is_empty() { vec![format!("{:#x}", location.address)] } else { names }
        };
        let sample = |sample: &proto::Sample| {
            (sample.location_id.iter().flat_map(lines).collect(), sample.value[0], sample.value[1])
        };
        profile.sample.iter().map(sample).collect()
    }

    #[test]
    fn the_handlers_own_frames_are_cut_by_name() {
        let bytes = encode(&samples(&[(&[0x10, 0x20, 0x1100, 0x1200], 2)]), named);
        let names = ["inlined", "leaf", "main"].map(String::from).to_vec();
        assert_eq!(read(&bytes), [(names, 2, 20_000_000)]);
    }

    #[test]
    fn without_names_what_all_stacks_begin_with_is_cut() {
        let stacks: &[(&[u64], i64)] = &[(&[0x10, 0x20, 0x1100, 0x1200], 1), (&[0x10, 0x20, 0x1300, 0x1200], 1)];
        let bytes = encode(&samples(stacks), |_| Vec::new());
        let stack = |leaf: &str| vec![leaf.to_string(), "0x11ff".to_string()];
        assert_eq!(read(&bytes), [(stack("0x1100"), 1, 10_000_000), (stack("0x1300"), 1, 10_000_000)]);
    }

    #[test]
    fn addresses_find_their_mapping_and_strings_begin_with_the_empty_one() {
        let bytes = encode(&samples(&[(&[0x10, 0x20, 0x1100, 0x9999], 1)]), named);
        let profile = proto::Profile::decode(bytes.as_slice()).unwrap();
        assert_eq!(profile.string_table.first().map(String::as_str), Some(""));
        let [mapping] = profile.mapping.as_slice() else { panic!("{:?}", profile.mapping) };
        assert_eq!((mapping.memory_start, mapping.memory_limit, mapping.file_offset), (0x1000, 0x2000, 0x400));
        assert!(mapping.has_functions);
        let ids: Vec<u64> = profile.location.iter().map(|location| location.mapping_id).collect();
        assert_eq!(ids, [1, 0]);
        assert_eq!((profile.time_nanos, profile.duration_nanos), (7_000_000_000, 1_000_000_000));
    }

    #[test]
    fn nothing_sampled_is_a_profile_too() {
        assert_eq!(read(&encode(&samples(&[]), named)), []);
        assert_eq!(read(&encode(&samples(&[(&[], 1)]), named)), []);
    }
}
