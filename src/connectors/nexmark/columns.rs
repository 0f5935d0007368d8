//! What is in an event: one function per column, from event numbers to an Arrow array.
//!
//! Each column reads random streams of its own, so a column that is not asked for costs nothing,
//! and whoever needs another column's value (an auction's reserve needs its first price) draws
//! it again. The distributions are those of the benchmark's public generator: ids, hot sellers,
//! bidders and auctions, prices, names, channels and urls, lengths. Texts that it trims have
//! letters at both ends here instead, so their length is known without making them.

use std::sync::{Arc, OnceLock};

use arrow::array::{
    Array, ArrayRef, Int32Array, Int64Array, StringArray, StructArray, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Fields};

use crate::connectors::draw::{Draw, below, below_pair, fraction, push_letters};
use crate::connectors::nexmark::events::{Config, Events, Kind};
use crate::types::error::Result;
use crate::types::sql_type::SqlType;

const FIRST_PERSON_ID: i64 = 1000;
const FIRST_AUCTION_ID: i64 = 1000;
const FIRST_CATEGORY_ID: u64 = 10;
const CATEGORIES: u64 = 5;
/// Ids so far ahead of the newest may be named before they exist.
const ID_LEAD: i64 = 10;
/// The hot auction, bidder and seller change once per so many new ones.
const HOT_PERIOD: i64 = 100;
/// The shortest random text of a drawn length.
const TEXT_MIN: u64 = 3;
const MILLISECOND_US: i64 = 1000;

const FIRST_NAMES: [&str; 11] = [
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const COLD_CHANNELS: u32 = 10_000;

/// Numbers of the random streams. They are part of what a seed means: never renumber.
mod stream {
    pub const PERSON_NAME: u64 = 1;
    pub const PERSON_EMAIL: u64 = 2;
    pub const PERSON_CREDIT_CARD: u64 = 3;
    pub const PERSON_PLACE: u64 = 4;
    pub const PERSON_EXTRA: u64 = 5;
    pub const AUCTION_ITEM_NAME: u64 = 10;
    pub const AUCTION_DESCRIPTION: u64 = 11;
    pub const AUCTION_INITIAL_BID: u64 = 12;
    pub const AUCTION_RESERVE: u64 = 13;
    pub const AUCTION_EXPIRES: u64 = 14;
    pub const AUCTION_SELLER: u64 = 15;
    pub const AUCTION_CATEGORY: u64 = 16;
    pub const AUCTION_EXTRA: u64 = 17;
    pub const BID_AUCTION: u64 = 20;
    pub const BID_BIDDER: u64 = 21;
    pub const BID_PRICE: u64 = 22;
    pub const BID_CHANNEL: u64 = 23;
    pub const BID_EXTRA: u64 = 24;
    pub const CHANNEL_URLS: u64 = 30;
}

/// One column of a table.
pub struct Column {
    pub name: &'static str,
    pub sql_type: SqlType,
    fill: fn(&Generator, &Events) -> ArrayRef,
}

/// The columns of `person`.
pub const PERSON: &[Column] = &[
    Column { name: "id", sql_type: SqlType::Int8, fill: person_id },
    Column { name: "name", sql_type: SqlType::Text, fill: person_name },
    Column { name: "email_address", sql_type: SqlType::Text, fill: person_email },
    Column { name: "credit_card", sql_type: SqlType::Text, fill: person_credit_card },
    Column { name: "city", sql_type: SqlType::Text, fill: person_city },
    Column { name: "state", sql_type: SqlType::Text, fill: person_state },
    Column { name: "date_time", sql_type: SqlType::Timestamp, fill: date_time },
    Column { name: "extra", sql_type: SqlType::Text, fill: person_extra },
];

/// The columns of `auction`.
pub const AUCTION: &[Column] = &[
    Column { name: "id", sql_type: SqlType::Int8, fill: auction_id },
    Column { name: "item_name", sql_type: SqlType::Text, fill: auction_item_name },
    Column { name: "description", sql_type: SqlType::Text, fill: auction_description },
    Column { name: "initial_bid", sql_type: SqlType::Int8, fill: auction_initial_bid },
    Column { name: "reserve", sql_type: SqlType::Int8, fill: auction_reserve },
    Column { name: "date_time", sql_type: SqlType::Timestamp, fill: date_time },
    Column { name: "expires", sql_type: SqlType::Timestamp, fill: auction_expires },
    Column { name: "seller", sql_type: SqlType::Int8, fill: auction_seller },
    Column { name: "category", sql_type: SqlType::Int8, fill: auction_category },
    Column { name: "extra", sql_type: SqlType::Text, fill: auction_extra },
];

/// The columns of `bid`.
pub const BID: &[Column] = &[
    Column { name: "auction", sql_type: SqlType::Int8, fill: bid_auction },
    Column { name: "bidder", sql_type: SqlType::Int8, fill: bid_bidder },
    Column { name: "price", sql_type: SqlType::Int8, fill: bid_price },
    Column { name: "channel", sql_type: SqlType::Text, fill: bid_channel },
    Column { name: "url", sql_type: SqlType::Text, fill: bid_url },
    Column { name: "date_time", sql_type: SqlType::Timestamp, fill: date_time },
    Column { name: "extra", sql_type: SqlType::Text, fill: bid_extra },
];

/// What a table's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Of(Kind),
    /// All events, one struct column for each kind.
    Event,
}

impl Table {
    /// The events that are its rows; `None`: all.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Table::Of(kind) => Some(kind),
            Table::Event => None,
        }
    }

    /// Its columns.
    pub fn fields(self) -> Fields {
        match self {
            Table::Of(kind) => kind_fields(kind),
            Table::Event => Fields::from(vec![
                SqlType::Int4.to_field("event_type", true),
                Field::new("person", DataType::Struct(kind_fields(Kind::Person)), true),
                Field::new("auction", DataType::Struct(kind_fields(Kind::Auction)), true),
                Field::new("bid", DataType::Struct(kind_fields(Kind::Bid)), true),
                SqlType::Timestamp.to_field("date_time", true),
            ]),
        }
    }
}

fn kind_columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Person => PERSON,
        Kind::Auction => AUCTION,
        Kind::Bid => BID,
    }
}

fn kind_fields(kind: Kind) -> Fields {
    kind_columns(kind).iter().map(|c| c.sql_type.to_field(c.name, true)).collect()
}

/// Makes the columns of events. One per source, shared by its readers.
pub struct Generator {
    pub config: Config,
    /// Made when a channel or url is first asked for.
    channels: OnceLock<Channels>,
}

/// The channels and their urls: first the hot ones, then the cold ones.
struct Channels {
    names: StringArray,
    urls: StringArray,
}

impl Generator {
    pub fn new(config: Config) -> Generator {
        Generator { config, channels: OnceLock::new() }
    }

    /// Column number `column` of [`Table::fields`] for these events, which the table has.
    pub fn column(&self, table: Table, column: usize, events: &Events) -> Result<ArrayRef> {
        match (table, column) {
            (Table::Of(kind), column) => Ok((kind_columns(kind)[column].fill)(self, events)),
            (Table::Event, 0) => Ok(self.event_type(events)),
            (Table::Event, 1) => self.of_kind(Kind::Person, events),
            (Table::Event, 2) => self.of_kind(Kind::Auction, events),
            (Table::Event, 3) => self.of_kind(Kind::Bid, events),
            (Table::Event, _) => Ok(date_time(self, events)),
        }
    }

    fn draw(&self, stream: u64) -> Draw {
        Draw::new(self.config.seed, stream)
    }

    fn kind_of(&self, number: u64, cycle: u64) -> Kind {
        self.config.kind(number - cycle * self.config.cycle_events())
    }

    fn event_type(&self, events: &Events) -> ArrayRef {
        let types = events.iter().map(|(number, cycle)| self.kind_of(number, cycle) as i32);
        Arc::new(Int32Array::from_iter_values(types))
    }

    /// The events of one kind as structs, NULL where the event is of another kind.
    fn of_kind(&self, kind: Kind, events: &Events) -> Result<ArrayRef> {
        let mut chosen = Events::default();
        let mut indices = Vec::with_capacity(events.len());
        for (number, cycle) in events.iter() {
            if self.kind_of(number, cycle) == kind {
                indices.push(Some(chosen.len() as u32));
                chosen.push(number, cycle);
            } else {
                indices.push(None);
            }
        }
        let nulls: NullBuffer = indices.iter().map(Option::is_some).collect();
        let indices = UInt32Array::from(indices);
        let columns = kind_columns(kind)
            .iter()
            .map(|column| Ok(take(&(column.fill)(self, &chosen), &indices, None)?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(StructArray::try_new(kind_fields(kind), columns, Some(nulls))?))
    }

    /// The newest person when this event happens, counted from 0 (-1: there is none).
    #[inline]
    fn newest_person(&self, number: u64, cycle: u64) -> i64 {
        let persons = self.config.persons as i64;
        let offset = (number - cycle * self.config.cycle_events()) as i64;
        // A cycle begins with its persons; without any the newest one is -1.
        cycle as i64 * persons + offset.min(persons - 1)
    }

    /// The newest auction when this event happens, counted from 0 (-1: there is none).
    #[inline]
    fn newest_auction(&self, number: u64, cycle: u64) -> i64 {
        let auctions = self.config.auctions as i64;
        let offset = (number - cycle * self.config.cycle_events()) as i64;
        // Before the cycle's first auction it is the last one of the cycle before.
        let in_cycle = (offset - self.config.persons as i64).clamp(-1, auctions - 1);
        cycle as i64 * auctions + in_cycle
    }

    /// Some person who is active, or about to come; `bits` are 32 random ones.
    #[inline]
    fn some_person(&self, newest: i64, bits: u32) -> i64 {
        let people = newest + 1;
        let active = people.min(self.config.active_people as i64);
        people - active + scale(bits, active + ID_LEAD)
    }

    /// Some auction that is in flight, or about to come; `bits` are 32 random ones.
    #[inline]
    fn some_auction(&self, newest: i64, bits: u32) -> i64 {
        let oldest = (newest - self.config.in_flight_auctions as i64).max(0);
        oldest + scale(bits, newest - oldest + 1 + ID_LEAD)
    }

    /// A seller or bidder: mostly the hot one, else some active person.
    #[inline]
    fn hot_or_some_person(&self, newest: i64, hot_ratio: u64, hot_place: i64, bits: u64) -> i64 {
        let (miss, _) = below_pair(bits, hot_ratio as u32, 0);
        let hot = newest / HOT_PERIOD * HOT_PERIOD + hot_place;
        let some = self.some_person(newest, bits as u32);
        FIRST_PERSON_ID + if miss > 0 { hot } else { some }
    }

    fn channels(&self) -> &Channels {
        self.channels.get_or_init(|| Channels::new(self.draw(stream::CHANNEL_URLS)))
    }

    /// Each event's place in [`Channels`].
    fn channel_numbers(&self, events: &Events) -> UInt32Array {
        let draw = self.draw(stream::BID_CHANNEL);
        let ratio = self.config.hot_channel_ratio as u32;
        let hot_channels = HOT_CHANNELS.len() as u32;
        UInt32Array::from_iter_values(events.numbers.iter().map(|number| {
            let bits = draw.at(*number);
            let (miss, cold) = below_pair(bits, ratio, COLD_CHANNELS);
            let (_, hot) = below_pair(bits, 0, hot_channels);
            if miss > 0 { hot } else { hot_channels + cold }
        }))
    }
}

impl Channels {
    fn new(draw: Draw) -> Channels {
        let mut names: Vec<String> = HOT_CHANNELS.map(str::to_owned).to_vec();
        names.extend((0..COLD_CHANNELS).map(|n| format!("channel-{n}")));
        let urls: Vec<String> = (0..names.len() as u32)
            .map(|index| {
                let draw = draw.child(u64::from(index));
                let part = |number: u64| url_part(draw.child(number));
                let base = format!(
                    "https://www.nexmark.com/{}/{}/{}/item.htm?query=1",
                    part(0),
                    part(1),
                    part(2)
                );
                // One cold channel in ten has a url that does not name it.
                match index.checked_sub(HOT_CHANNELS.len() as u32) {
                    Some(cold) if below(draw.at(0), 10) > 0 => {
                        let id = (cold.reverse_bits() as i32).unsigned_abs();
                        format!("{base}&channel_id={id}")
                    }
                    _ => base,
                }
            })
            .collect();
        Channels { names: names.into(), urls: urls.into() }
    }
}

/// Three or four letters, of which one in 13 is an underscore.
fn url_part(draw: Draw) -> String {
    let length = TEXT_MIN + below(draw.at(0), 2);
    (1..=length)
        .map(|n| match below(draw.at(n), 13) {
            0 => '_',
            _ => char::from(b'a' + below(draw.child(n).at(0), 26) as u8),
        })
        .collect()
}

/// 32 random bits as a number below `bound`, which is positive and below 2^31.
#[inline]
fn scale(bits: u32, bound: i64) -> i64 {
    ((u64::from(bits) * bound as u64) >> 32) as i64
}

/// A price in cents: 10 to the power of an even draw in [0, 6), times 100.
#[inline]
fn price(bits: u64) -> i64 {
    // Taylor coefficients of 2^x: ln(2)^n / n!. The error on [0, 1) is below 1e-8; what counts is
    // that it is the same on every machine, which a library's `powf` is not.
    const POWERS: [f64; 10] = [
        1.0,
        std::f64::consts::LN_2,
        0.240_226_506_959_100_7,
        0.055_504_108_664_821_58,
        0.009_618_129_107_628_477,
        0.001_333_355_814_642_844_3,
        0.000_154_035_303_933_816_1,
        0.000_015_252_733_804_059_84,
        0.000_001_321_548_679_014_431,
        0.000_000_101_780_860_092_396_99,
    ];
    let exponent = fraction(bits) * (6.0 * std::f64::consts::LOG2_10);
    let whole = exponent as u64;
    let part = exponent - whole as f64;
    let power = POWERS.iter().rev().fold(0.0, |sum, coefficient| sum * part + coefficient);
    let scale = f64::from_bits((whole + 1023) << 52);
    (power * scale * 100.0 + 0.5) as i64
}

fn integers(events: &Events, value: impl Fn(u64, u64) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(events.iter().map(|(n, c)| value(n, c))))
}

/// A text column; `push` appends the text of event `number`.
fn texts(events: &Events, bytes_each: usize, mut push: impl FnMut(u64, &mut Vec<u8>)) -> ArrayRef {
    let mut values = Vec::with_capacity(events.len() * bytes_each + 64);
    let mut ends = Vec::with_capacity(events.len() + 1);
    ends.push(0);
    for number in &events.numbers {
        push(*number, &mut values);
        ends.push(values.len() as i32);
    }
    assert!(i32::try_from(values.len()).is_ok(), "batches are bounded in rows and row bytes");
    Arc::new(StringArray::new(OffsetBuffer::new(ends.into()), values.into(), None))
}

fn date_time(g: &Generator, events: &Events) -> ArrayRef {
    let times = events.numbers.iter().map(|number| g.config.time_us(*number));
    Arc::new(TimestampMicrosecondArray::from_iter_values(times))
}

/// The length of the `extra` text that brings a row of `bytes` to `bytes_average` on average.
#[inline]
fn extra_length(bits: u64, bytes: u64, bytes_average: u64) -> usize {
    if bytes > bytes_average {
        return 0;
    }
    let wanted = bytes_average - bytes;
    // A fifth, rounded.
    let spread = (wanted * 2 + 5) / 10;
    (wanted - spread + below(bits, 2 * spread)) as usize
}

/// The position in a text's stream that its length is drawn from; its letters come from 0 on.
const LENGTH: u64 = 1 << 32;

#[inline]
fn push_extra(text: &mut Vec<u8>, draw: Draw, bytes: u64, bytes_average: u64) {
    push_letters(text, draw, extra_length(draw.at(LENGTH), bytes, bytes_average));
}

/// The length of a random text: 3 to `length_max` - 1.
fn text_length(draw: Draw, length_max: u64) -> u64 {
    TEXT_MIN + below(draw.at(LENGTH), length_max - TEXT_MIN)
}

/// Words of random letters: one character in 13 is a space, but not the first and the last.
fn push_words(text: &mut Vec<u8>, draw: Draw, length_max: u64) {
    let length = text_length(draw, length_max) as usize;
    let start = text.len();
    push_letters(text, draw, length);
    let spaces = draw.child(1);
    for (index, letter) in text[start + 1..start + length - 1].iter_mut().enumerate() {
        // Eight characters from one draw.
        let byte = spaces.at(index as u64 / 8).to_le_bytes()[index % 8];
        if u32::from(byte) * 13 < 256 {
            *letter = b' ';
        }
    }
}

fn person_id(g: &Generator, events: &Events) -> ArrayRef {
    integers(events, |n, c| FIRST_PERSON_ID + g.newest_person(n, c))
}

fn names_of(bits: u64) -> (&'static str, &'static str) {
    let (first, last) = below_pair(bits, FIRST_NAMES.len() as u32, LAST_NAMES.len() as u32);
    (FIRST_NAMES[first as usize], LAST_NAMES[last as usize])
}

fn person_name(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::PERSON_NAME);
    texts(events, 14, |n, text| {
        let (first, last) = names_of(draw.at(n));
        text.extend_from_slice(first.as_bytes());
        text.push(b' ');
        text.extend_from_slice(last.as_bytes());
    })
}

/// Lengths of the two parts of an email address.
fn email_lengths(bits: u64) -> (u32, u32) {
    let (user, host) = below_pair(bits, 4, 2);
    (TEXT_MIN as u32 + user, TEXT_MIN as u32 + host)
}

fn person_email(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::PERSON_EMAIL);
    texts(events, 16, |n, text| {
        let (user, host) = email_lengths(draw.at(n));
        push_letters(text, draw.child(n), user as usize);
        text.push(b'@');
        push_letters(text, draw.child(n).child(1), host as usize);
        text.extend_from_slice(b".com");
    })
}

fn person_credit_card(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::PERSON_CREDIT_CARD);
    texts(events, 19, |n, text| {
        let mut digits = below(draw.at(n), 10_000_000_000_000_000);
        let mut card = *b"0000 0000 0000 0000";
        for place in card.iter_mut().rev().filter(|place| **place != b' ') {
            *place += (digits % 10) as u8;
            digits /= 10;
        }
        text.extend_from_slice(&card);
    })
}

fn city_and_state(bits: u64) -> (&'static str, &'static str) {
    let (city, state) = below_pair(bits, CITIES.len() as u32, STATES.len() as u32);
    (CITIES[city as usize], STATES[state as usize])
}

fn person_city(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::PERSON_PLACE);
    texts(events, 8, |n, text| text.extend_from_slice(city_and_state(draw.at(n)).0.as_bytes()))
}

fn person_state(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::PERSON_PLACE);
    texts(events, 2, |n, text| text.extend_from_slice(city_and_state(draw.at(n)).1.as_bytes()))
}

fn person_extra(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::PERSON_EXTRA);
    let (names, emails) = (g.draw(stream::PERSON_NAME), g.draw(stream::PERSON_EMAIL));
    let places = g.draw(stream::PERSON_PLACE);
    let average = g.config.person_bytes;
    texts(events, average as usize, |n, text| {
        let (first, last) = names_of(names.at(n));
        let (user, host) = email_lengths(emails.at(n));
        let (city, state) = city_and_state(places.at(n));
        // 8 for the id; a space, "@" and ".com"; a credit card of 19.
        let fixed = 8 + 1 + 5 + 19;
        let bytes = fixed + first.len() + last.len() + city.len() + state.len();
        push_extra(text, draw.child(n), bytes as u64 + u64::from(user + host), average);
    })
}

fn auction_id(g: &Generator, events: &Events) -> ArrayRef {
    integers(events, |n, c| FIRST_AUCTION_ID + g.newest_auction(n, c))
}

const ITEM_NAME_MAX: u64 = 20;
const DESCRIPTION_MAX: u64 = 100;

fn auction_item_name(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::AUCTION_ITEM_NAME);
    texts(events, 12, |n, text| push_words(text, draw.child(n), ITEM_NAME_MAX))
}

fn auction_description(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::AUCTION_DESCRIPTION);
    texts(events, 52, |n, text| push_words(text, draw.child(n), DESCRIPTION_MAX))
}

fn auction_initial_bid(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::AUCTION_INITIAL_BID);
    integers(events, |n, _| price(draw.at(n)))
}

fn auction_reserve(g: &Generator, events: &Events) -> ArrayRef {
    let initial = g.draw(stream::AUCTION_INITIAL_BID);
    let draw = g.draw(stream::AUCTION_RESERVE);
    integers(events, |n, _| price(initial.at(n)) + price(draw.at(n)))
}

fn auction_expires(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::AUCTION_EXPIRES);
    // On average an auction is open until as many auctions as are in flight have begun after it.
    let auctions = g.config.auctions.max(1);
    let ahead = g.config.in_flight_auctions * g.config.cycle_events() / auctions;
    let times = events.numbers.iter().map(|number| {
        let time = g.config.time_us(*number);
        let horizon = g.config.time_us(number.saturating_add(ahead)).wrapping_sub(time).max(0);
        let spread = horizon.saturating_mul(2).max(MILLISECOND_US);
        let open = MILLISECOND_US + below(draw.at(*number), spread as u64) as i64;
        time.wrapping_add(open)
    });
    Arc::new(TimestampMicrosecondArray::from_iter_values(times))
}

fn auction_seller(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::AUCTION_SELLER);
    let ratio = g.config.hot_seller_ratio;
    integers(events, |n, c| g.hot_or_some_person(g.newest_person(n, c), ratio, 0, draw.at(n)))
}

fn auction_category(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::AUCTION_CATEGORY);
    integers(events, |n, _| (FIRST_CATEGORY_ID + below(draw.at(n), CATEGORIES)) as i64)
}

fn auction_extra(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::AUCTION_EXTRA);
    let names = g.draw(stream::AUCTION_ITEM_NAME);
    let descriptions = g.draw(stream::AUCTION_DESCRIPTION);
    let average = g.config.auction_bytes;
    texts(events, average as usize, |n, text| {
        // Six numbers and times of 8 bytes each.
        let bytes = 48
            + text_length(names.child(n), ITEM_NAME_MAX)
            + text_length(descriptions.child(n), DESCRIPTION_MAX);
        push_extra(text, draw.child(n), bytes, average);
    })
}

fn bid_auction(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::BID_AUCTION);
    let ratio = g.config.hot_auction_ratio as u32;
    integers(events, |n, c| {
        let bits = draw.at(n);
        let newest = g.newest_auction(n, c);
        let (miss, _) = below_pair(bits, ratio, 0);
        let hot = newest / HOT_PERIOD * HOT_PERIOD;
        let some = g.some_auction(newest, bits as u32);
        FIRST_AUCTION_ID + if miss > 0 { hot } else { some }
    })
}

fn bid_bidder(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::BID_BIDDER);
    let ratio = g.config.hot_bidder_ratio;
    // The second person of the period, so that hot bidders are not the hot sellers.
    integers(events, |n, c| g.hot_or_some_person(g.newest_person(n, c), ratio, 1, draw.at(n)))
}

fn bid_price(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::BID_PRICE);
    integers(events, |n, _| price(draw.at(n)))
}

fn bid_channel(g: &Generator, events: &Events) -> ArrayRef {
    take_text(&g.channels().names, &g.channel_numbers(events))
}

fn bid_url(g: &Generator, events: &Events) -> ArrayRef {
    take_text(&g.channels().urls, &g.channel_numbers(events))
}

fn take_text(texts: &StringArray, indices: &UInt32Array) -> ArrayRef {
    take(texts as &dyn Array, indices, None).expect("indices are below the number of channels")
}

fn bid_extra(g: &Generator, events: &Events) -> ArrayRef {
    let draw = g.draw(stream::BID_EXTRA);
    let average = g.config.bid_bytes;
    // Four numbers and times of 8 bytes each.
    texts(events, average as usize, |n, text| push_extra(text, draw.child(n), 32, average))
}
