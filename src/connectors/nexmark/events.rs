//! Which events there are: their kinds, their times, and which split has which.
//!
//! Events are numbered from 0. A cycle is `person + auction + bid` proportions long (50): first
//! its persons, then its auctions, then its bids; so the kind of an event, and the newest person
//! and auction at that moment, follow from its number. Split i of n has the cycles i, i + n, ...
//! With `out.of.order.group.size` g > 1, the events of each g consecutive places come in another
//! order: place p holds event `p - p mod g + (p * 953) mod g`.

use crate::connectors::options::Options;
use crate::types::error::{Error, Result, SqlState};

/// The first place that no split has: where an unbounded generator would end.
const PLACES_MAX: u64 = i64::MAX as u64;
/// Multiplier of the out-of-order permutation; prime, so only its multiples are unfit as sizes.
const SHUFFLE: u64 = 953;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Person,
    Auction,
    Bid,
}

/// Event time from one event to the next, in microseconds, as a fraction in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventStep {
    numerator: u64,
    denominator: u64,
}

impl EventStep {
    /// `numerator / denominator` microseconds; the denominator is not 0.
    pub fn new(numerator: u64, denominator: u64) -> EventStep {
        assert!(denominator > 0, "checked with the options");
        let divisor = gcd(numerator, denominator);
        EventStep { numerator: numerator / divisor, denominator: denominator / divisor }
    }

    /// Microseconds from event 0 to this one.
    #[inline]
    pub fn micros_at(self, event: u64) -> i64 {
        let whole = event / self.denominator;
        let rest = event % self.denominator;
        // rest * numerator fits: both are below 2^32 by the limits of the options.
        whole.wrapping_mul(self.numerator).wrapping_add(rest * self.numerator / self.denominator)
            as i64
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// The generator's settings, from its options.
#[derive(Clone, Debug)]
pub struct Config {
    pub seed: u64,
    pub splits: u64,
    /// Events of all kinds; `None`: for ever.
    pub events_limit: Option<u64>,
    /// Events of all kinds and splits per second of wall clock; `None`: as fast as read.
    pub rate: Option<f64>,
    /// Event time of event 0, microseconds since 1970.
    pub base_time_us: i64,
    pub step: EventStep,
    pub persons: u64,
    pub auctions: u64,
    pub bids: u64,
    /// Persons who still act: the newest so many.
    pub active_people: u64,
    /// Auctions that still get bids: the newest so many.
    pub in_flight_auctions: u64,
    /// One in so many bids is *not* for a hot auction; likewise below.
    pub hot_auction_ratio: u64,
    pub hot_bidder_ratio: u64,
    pub hot_seller_ratio: u64,
    pub hot_channel_ratio: u64,
    /// Average bytes of a row, `extra` included.
    pub person_bytes: u64,
    pub auction_bytes: u64,
    pub bid_bytes: u64,
    pub out_of_order_group: u64,
}

impl Config {
    /// The settings that checked options stand for.
    pub fn from_options(options: &Options) -> Result<Config> {
        const MANY: u64 = 1_000_000_000;
        let number = |name: &str, min: u64, max: u64| -> Result<u64> {
            options.whole(name, min, max)?.ok_or_else(|| {
                Error::internal(format!("option \"{name}\" has a default in the list"))
            })
        };
        let config = Config {
            seed: number("seed", 0, u64::MAX)?,
            splits: number("splits", 1, 1024)?,
            events_limit: options.whole("events.limit", 0, PLACES_MAX)?,
            rate: options.positive("rate")?,
            base_time_us: base_time(options)?,
            step: event_step(options)?,
            persons: number("person.proportion", 0, 1_000_000)?,
            auctions: number("auction.proportion", 0, 1_000_000)?,
            bids: number("bid.proportion", 0, 1_000_000)?,
            active_people: number("active.people", 1, MANY)?,
            in_flight_auctions: number("in.flight.auctions", 1, MANY)?,
            hot_auction_ratio: number("hot.auction.ratio", 1, MANY)?,
            hot_bidder_ratio: number("hot.bidder.ratio", 1, MANY)?,
            hot_seller_ratio: number("hot.seller.ratio", 1, MANY)?,
            hot_channel_ratio: number("hot.channel.ratio", 1, MANY)?,
            person_bytes: number("person.avg.size", 0, 10_000)?,
            auction_bytes: number("auction.avg.size", 0, 10_000)?,
            bid_bytes: number("bid.avg.size", 0, 10_000)?,
            out_of_order_group: number("out.of.order.group.size", 1, 1_000_000)?,
        };
        if config.cycle_events() == 0 {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                "the proportions of persons, auctions and bids are all 0",
            ));
        }
        if config.out_of_order_group.is_multiple_of(SHUFFLE) {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!(
                    "option \"out.of.order.group.size\": {} is a multiple of {SHUFFLE}",
                    config.out_of_order_group
                ),
            )
            .hint("Events are shuffled by this number; take any other size."));
        }
        Ok(config)
    }

    /// Events of one cycle.
    pub fn cycle_events(&self) -> u64 {
        self.persons + self.auctions + self.bids
    }

    /// One past the last place.
    pub fn places(&self) -> u64 {
        self.events_limit.unwrap_or(PLACES_MAX)
    }

    /// Event time in microseconds since 1970.
    #[inline]
    pub fn time_us(&self, event: u64) -> i64 {
        self.base_time_us.wrapping_add(self.step.micros_at(event))
    }

    /// The kind of the event at this offset in its cycle.
    #[inline]
    pub fn kind(&self, offset: u64) -> Kind {
        if offset < self.persons {
            Kind::Person
        } else if offset < self.persons + self.auctions {
            Kind::Auction
        } else {
            Kind::Bid
        }
    }

    /// Offsets in a cycle that have events of this kind.
    fn offsets(&self, kind: Option<Kind>) -> (u64, u64) {
        match kind {
            None => (0, self.cycle_events()),
            Some(Kind::Person) => (0, self.persons),
            Some(Kind::Auction) => (self.persons, self.persons + self.auctions),
            Some(Kind::Bid) => (self.persons + self.auctions, self.cycle_events()),
        }
    }
}

fn base_time(options: &Options) -> Result<i64> {
    let text = options.required("base.time")?;
    crate::formats::text::parse_timestamp_us(text.trim().as_bytes()).map_err(|_| {
        Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("option \"base.time\": {text:?} is not a timestamp"),
        )
    })
}

/// From `event.rate` or `inter.event.us`.
fn event_step(options: &Options) -> Result<EventStep> {
    const SECOND_US: u64 = 1_000_000;
    let rate = options.whole("event.rate", 1, 1_000_000_000)?;
    let micros = options.whole("inter.event.us", 0, 3_600 * SECOND_US)?;
    match (rate, micros) {
        (Some(_), Some(_)) => Err(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            "options \"event.rate\" and \"inter.event.us\" exclude each other",
        )),
        (Some(rate), None) => Ok(EventStep::new(SECOND_US, rate)),
        (None, Some(micros)) => Ok(EventStep::new(micros, 1)),
        (None, None) => Ok(EventStep::new(1, 1)),
    }
}

/// A batch of events: what the columns are computed from.
#[derive(Debug, Default)]
pub struct Events {
    pub numbers: Vec<u64>,
    /// The cycle of each.
    pub cycles: Vec<u64>,
}

impl Events {
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    pub fn clear(&mut self) {
        self.numbers.clear();
        self.cycles.clear();
    }

    /// Each event's number and cycle.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.numbers.iter().copied().zip(self.cycles.iter().copied())
    }

    pub fn push(&mut self, number: u64, cycle: u64) {
        self.numbers.push(number);
        self.cycles.push(cycle);
    }
}

/// Walks the places of one split.
#[derive(Debug)]
pub struct Walk {
    split: u64,
    kind: Option<Kind>,
    /// The next place to look at; not necessarily one of the split's.
    place: u64,
    /// One past the last place to look at.
    end: u64,
}

impl Walk {
    /// Places `from .. until` of `split`, events of `kind` only (`None`: all).
    pub fn new(config: &Config, split: u64, kind: Option<Kind>, from: u64, until: u64) -> Walk {
        assert!(split < config.splits, "a split of this source");
        Walk { split, kind, place: from, end: until.min(config.places()) }
    }

    /// Everything before it has been given out.
    pub fn place(&self) -> u64 {
        self.place
    }

    pub fn at_end(&self) -> bool {
        self.place >= self.end
    }

    /// Appends the next events to `events` until it has `rows_max`, or the places before `due`
    /// are used up.
    pub fn take(&mut self, config: &Config, rows_max: usize, due: u64, events: &mut Events) {
        let cycle_events = config.cycle_events();
        let end = self.end.min(due);
        let (low, high) = if config.out_of_order_group == 1 {
            config.offsets(self.kind)
        } else {
            (0, cycle_events)
        };
        while self.place < end && events.len() < rows_max {
            let cycle = self.place / cycle_events;
            let ahead = (self.split + config.splits - cycle % config.splits) % config.splits;
            if ahead > 0 {
                self.place = (cycle + ahead).saturating_mul(cycle_events);
                continue;
            }
            let cycle_start = cycle * cycle_events;
            let start = self.place.max(cycle_start + low);
            let stop = end.min(cycle_start + high);
            if start >= stop {
                // Nothing of this kind is left before `end`, or none in this cycle.
                self.place = if start >= end { end } else { cycle_start + cycle_events };
                continue;
            }
            self.place = if config.out_of_order_group == 1 {
                let room = (rows_max - events.len()) as u64;
                let stop = stop.min(start.saturating_add(room));
                events.numbers.extend(start..stop);
                events.cycles.resize(events.numbers.len(), cycle);
                stop
            } else {
                self.take_shuffled(config, start, stop, rows_max, events)
            };
        }
    }

    /// As the loop of [`Walk::take`], for places that hold events of other numbers.
    fn take_shuffled(
        &self,
        config: &Config,
        start: u64,
        stop: u64,
        rows_max: usize,
        events: &mut Events,
    ) -> u64 {
        let group = config.out_of_order_group;
        let cycle_events = config.cycle_events();
        for place in start..stop {
            if events.len() == rows_max {
                return place;
            }
            let number = place - place % group + (place % group * SHUFFLE) % group;
            let cycle = number / cycle_events;
            let kind = config.kind(number % cycle_events);
            if self.kind.is_none_or(|wanted| wanted == kind) {
                events.push(number, cycle);
            }
        }
        stop
    }
}
