/*!
Parts of files in memory: what is asked for is fetched in requests of several MiB, what will be asked for
next is fetched beforehand, and all of it stays within one bound.

What will be read is known where values are compared: a plan of each side, in order. Outside of a plan, as in
headers, little is fetched at first, and twice as much each time that reading goes on where it ended.
*/

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Stretch;
use super::client::Client;
use super::object::Object;

/// Longest request, in bytes.
const PART: u64 = 2 << 20;
/// Most bytes that are kept, those under way included.
const MOST: u64 = 20 << 20;
/// Of these, most bytes outside of plans: they are short, rarely read again, and leave holes in memory when they go.
const LOOSE: u64 = 4 << 20;
/// Bytes of both sides that are fetched beforehand, and requests of each at most.
const AHEAD: u64 = 12 << 20;
const REQUESTS_AHEAD: usize = 32;
/// Shortest and longest request outside of a plan.
const SHORTEST: u64 = 16 << 10;
const LONGEST: u64 = 512 << 10;
/// Stretches that are no farther apart are fetched at once.
const GAP: u64 = 4 << 10;
/// Buffers that are kept for the next part: given back to the system, they would leave holes.
const SPARE: usize = 2;
/// Requests beforehand that are under way at a time.
const WORKERS: usize = 8;

/// Where a part begins: the object's number, and the first byte.
type Place = (usize, u64);

/// The parts.
#[derive(Clone)]
pub struct Parts {
    shared: Arc<Shared>,
}

struct Shared {
    client: Arc<Client>,
    state: Mutex<State>,
    /// A part has arrived, or will not.
    arrived: Condvar,
    /// There is something to fetch.
    wanted: Condvar,
}

#[derive(Default)]
struct State {
    parts: BTreeMap<Place, Part>,
    bytes: u64,
    /// Those of parts outside of plans.
    loose: u64,
    clock: u64,
    plans: [Plan; 2],
    /// Where reading outside of a plan would go on, and how much was fetched last, by object.
    streams: HashMap<usize, (u64, u64)>,
    queue: VecDeque<(Arc<Object>, u64, u64)>,
    workers: usize,
    spare: Vec<Vec<u8>>,
}

struct Part {
    len: u64,
    /// None while it is under way.
    bytes: Option<Arc<Vec<u8>>>,
    /// When it was read last; 0 if never.
    read: u64,
    /// Whether it is outside of the plans.
    is_loose: bool,
}

/// Parts in the order in which they will be read.
#[derive(Default)]
struct Plan {
    parts: Vec<Stretch>,
    /// Bytes of all of them.
    bytes: u64,
    /// Their numbers, by place.
    at: BTreeMap<Place, usize>,
    /// Which of them were fetched already.
    fetched: Vec<bool>,
    /// The last one that was read.
    current: Option<usize>,
}

impl Plan {
    fn new(stretches: &[Stretch]) -> Self {
        let mut parts: Vec<Stretch> = Vec::new();
        for (object, start, len) in stretches.iter().filter(|(.., len)| *len > 0) {
            let (mut start, end) = (*start, start + len);
            if let Some((last, first, len)) = parts.last_mut()
                && last.id == object.id
                && (*first + *len..=*first + *len + GAP).contains(&start)
                && *len < PART
            {
                let grown = (end - *first).min(PART);
                *len = grown.max(*len);
                start = start.max(*first + *len);
            }
            while start < end {
                let len = (end - start).min(PART);
                parts.push((Arc::clone(object), start, len));
                start += len;
            }
        }
        let at = parts
            .iter()
            .enumerate()
            .rev()
            .map(|(at, (object, start, _))| ((object.id, *start), at));
        let bytes = parts.iter().map(|(.., len)| len).sum();
        Self { at: at.collect(), fetched: vec![false; parts.len()], parts, bytes, current: None }
    }

    /// The part that holds a byte.
    fn find(&self, object: usize, offset: u64) -> Option<usize> {
        let (_, at) = self.at.range((object, 0)..=(object, offset)).next_back()?;
        let (_, start, len) = &self.parts[*at];
        (offset < start + len).then_some(*at)
    }
}

impl Parts {
    pub fn new(client: Arc<Client>) -> Self {
        let state = Mutex::default();
        let (arrived, wanted) = (Condvar::new(), Condvar::new());
        Self { shared: Arc::new(Shared { client, state, arrived, wanted }) }
    }

    /// Says what will be read next of a side, in order; returns in how many requests.
    pub fn plan(&self, side: usize, stretches: &[Stretch]) -> usize {
        let mut state = self.shared.lock();
        state.plans[side % 2] = Plan::new(stretches);
        state.queue.clear();
        state.look_ahead(side % 2, None);
        self.shared.start_workers(&mut state, self);
        state.plans[side % 2].parts.len()
    }

    /// Keeps bytes that came with another answer.
    pub fn keep(&self, object: &Object, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let mut state = self.shared.lock();
            let len = bytes.len() as u64;
            state.insert((object.id, 0), len);
            state.arrived((object.id, 0), Some(bytes));
        }
    }

    /// Fills a buffer.
    pub fn read(&self, object: &Arc<Object>, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > object.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (start, bytes) = self.part(object, at, (buffer.len() - done) as u64)?;
            let from = &bytes[(at - start) as usize..];
            let len = from.len().min(buffer.len() - done);
            buffer[done..done + len].copy_from_slice(&from[..len]);
            done += len;
        }
        Ok(())
    }

    /// The part that holds a byte, fetched if need be.
    fn part(
        &self,
        object: &Arc<Object>,
        offset: u64,
        wanted: u64,
    ) -> io::Result<(u64, Arc<Vec<u8>>)> {
        let shared = &self.shared;
        let mut state = shared.lock();
        let (start, len) = loop {
            match state.holding(object.id, offset) {
                Some((start, Some(bytes))) => {
                    let planned = state.read_planned(object.id, offset);
                    if planned {
                        shared.start_workers(&mut state, self);
                    } else {
                        let stream = state.streams.entry(object.id).or_default();
                        stream.0 = stream.0.max(start + bytes.len() as u64);
                    }
                    return Ok((start, bytes));
                }
                Some((_, None)) => {
                    state = shared.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                None => break state.choose(object, offset, wanted),
            }
        };
        state.insert((object.id, start), len);
        drop(state);
        let fetched = shared.fetch(object, start, len);
        let mut state = shared.lock();
        let (bytes, error) = match fetched {
            Ok(bytes) => (Some(bytes), None),
            Err(error) => (None, Some(error)),
        };
        let bytes = state.arrived((object.id, start), bytes);
        state.holding(object.id, offset);
        state.read_planned(object.id, offset);
        shared.start_workers(&mut state, self);
        drop(state);
        shared.arrived.notify_all();
        match (bytes, error) {
            (Some(bytes), _) => Ok((start, bytes)),
            (None, error) => Err(error.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Fetches beforehand, for ever.
    fn work(&self) {
        let shared = &self.shared;
        loop {
            let mut state = shared.lock();
            let (object, start, len) = loop {
                match state.queue.pop_front() {
                    Some(wanted) => break wanted,
                    None => {
                        state = shared.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            if state.parts.contains_key(&(object.id, start)) || !state.room(len) {
                continue;
            }
            state.insert((object.id, start), len);
            drop(state);
            // Who needs the part asks again, and hears what went wrong.
            let bytes = shared.fetch(&object, start, len).ok();
            shared.lock().arrived((object.id, start), bytes);
            shared.arrived.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch(&self, object: &Object, start: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = self.lock().buffer(len as usize);
        object.fetch(&self.client, start, &mut bytes)?;
        Ok(bytes)
    }

    fn start_workers(&self, state: &mut State, parts: &Parts) {
        while state.workers < WORKERS && state.workers < state.queue.len() {
            let parts = parts.clone();
            let worker = std::thread::Builder::new().name("fetch".to_owned());
            if worker.spawn(move || parts.work()).is_err() {
                break;
            }
            state.workers += 1;
        }
        if !state.queue.is_empty() {
            self.wanted.notify_all();
        }
    }
}

impl State {
    /// The part that holds a byte, and its bytes unless they are under way.
    fn holding(&mut self, object: usize, offset: u64) -> Option<(u64, Option<Arc<Vec<u8>>>)> {
        let (&(_, start), part) =
            self.parts.range_mut((object, 0)..=(object, offset)).next_back()?;
        if offset >= start + part.len {
            return None;
        }
        self.clock += 1;
        part.read = self.clock;
        Some((start, part.bytes.clone()))
    }

    /// What to fetch for a byte that is not there: the first byte, and how many.
    fn choose(&mut self, object: &Object, offset: u64, wanted: u64) -> (u64, u64) {
        for plan in &self.plans {
            // What was read once and is gone is looked at again in small pieces.
            if let Some(at) = plan.find(object.id, offset).filter(|at| !plan.fetched[*at]) {
                let (_, start, len) = plan.parts[at];
                return (start, len);
            }
        }
        let (next, last) = self.streams.get(&object.id).copied().unwrap_or_default();
        let usual = if next == offset { (last * 2).clamp(SHORTEST, LONGEST) } else { SHORTEST };
        let len = wanted.max(usual).min(PART).min(object.len() - offset);
        self.streams.insert(object.id, (offset + len, len));
        (offset, len)
    }

    /// A byte was read; if it is planned, what comes after it is queued.
    fn read_planned(&mut self, object: usize, offset: u64) -> bool {
        for side in 0..self.plans.len() {
            if let Some(at) = self.plans[side].find(object, offset) {
                if self.plans[side].current.is_none_or(|current| at > current) {
                    self.look_ahead(side, Some(at));
                }
                return true;
            }
        }
        false
    }

    /// Bytes of a side that are fetched beforehand: both sides are read at the same pace, from end to end.
    fn ahead(&self, side: usize) -> u64 {
        let (own, other) = (self.plans[side].bytes, self.plans[1 - side].bytes);
        if other == 0 {
            return AHEAD / 2;
        }
        let share = own as f64 / (own as f64 + other as f64);
        ((AHEAD as f64 * share) as u64).clamp(PART, AHEAD - PART)
    }

    fn look_ahead(&mut self, side: usize, current: Option<usize>) {
        let most = self.ahead(side);
        let plan = &mut self.plans[side];
        plan.current = current;
        let next = current.map_or(0, |at| at + 1);
        let mut ahead = 0;
        let parts = plan.parts.iter().zip(&plan.fetched);
        for ((object, start, len), fetched) in parts.skip(next).take(REQUESTS_AHEAD) {
            ahead += len;
            if ahead > most {
                break;
            }
            let there = *fetched
                || self.parts.contains_key(&(object.id, *start))
                || self.queue.iter().any(|(it, at, _)| it.id == object.id && at == start);
            if !there {
                self.queue.push_back((Arc::clone(object), *start, *len));
            }
        }
    }

    /// Makes room for a part that nobody waits for yet, out of those that were read.
    fn room(&mut self, len: u64) -> bool {
        while self.bytes + len > MOST {
            let read = self.parts.iter().filter(|(_, part)| part.bytes.is_some() && part.read > 0);
            let Some((&place, _)) = read.min_by_key(|(_, part)| part.read) else { return false };
            self.remove(place);
        }
        true
    }

    /// Reserves the place of a part that is fetched.
    fn insert(&mut self, place: Place, len: u64) {
        self.remove(place);
        let is_loose = !self.plans.iter().any(|plan| plan.at.contains_key(&place));
        let loose = if is_loose { len } else { 0 };
        while self.loose + loose > LOOSE && self.remove_oldest(|part| part.is_loose) {}
        while self.bytes + len > MOST && self.remove_oldest(|_| true) {}
        for plan in &mut self.plans {
            if let Some(at) = plan.at.get(&place) {
                plan.fetched[*at] = true;
            }
        }
        self.bytes += len;
        self.loose += loose;
        self.parts.insert(place, Part { len, bytes: None, read: 0, is_loose });
    }

    /// Removes the part of this kind that was not read for longest; false if there is none.
    fn remove_oldest(&mut self, is_meant: impl Fn(&Part) -> bool) -> bool {
        let there = self.parts.iter().filter(|(_, part)| part.bytes.is_some() && is_meant(part));
        let oldest = there.min_by_key(|(_, part)| (part.read == 0, part.read)).map(|(&at, _)| at);
        oldest.inspect(|&oldest| self.remove(oldest)).is_some()
    }

    /// The bytes of a part have arrived, or will not.
    fn arrived(&mut self, place: Place, bytes: Option<Vec<u8>>) -> Option<Arc<Vec<u8>>> {
        let Some(bytes) = bytes else {
            self.remove(place);
            return None;
        };
        let bytes = Arc::new(bytes);
        if let Some(part) = self.parts.get_mut(&place) {
            part.bytes = Some(Arc::clone(&bytes));
        }
        Some(bytes)
    }

    fn remove(&mut self, place: Place) {
        let Some(part) = self.parts.remove(&place) else { return };
        self.bytes -= part.len;
        self.loose -= if part.is_loose { part.len } else { 0 };
        if part.read == 0 {
            // It was fetched in vain, and is fetched again as a whole.
            for plan in &mut self.plans {
                if let Some(at) = plan.at.get(&place) {
                    plan.fetched[*at] = false;
                }
            }
        }
        // Who still reads from it drops it.
        let unused = part.bytes.and_then(|bytes| Arc::try_unwrap(bytes).ok());
        if let Some(buffer) = unused.filter(|it| it.capacity() as u64 >= LONGEST) {
            self.spare.push(buffer);
        }
        if self.spare.len() > SPARE {
            self.spare.remove(0);
        }
    }

    /// A buffer of so many bytes. Long ones have one capacity, so that each serves all of them.
    fn buffer(&mut self, len: usize) -> Vec<u8> {
        if (len as u64) < LONGEST {
            return vec![0; len];
        }
        let mut buffer = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(PART as usize));
        buffer.resize(len, 0);
        buffer
    }
}
