//! Windows of event time that overlap: HOP and CUMULATE, and the panes that they are made of.
//!
//! All rows of a pane are in the same windows: it is a piece of time as long as the greatest common
//! divisor of slide and size, or as the step of CUMULATE. A window is known by one time: where it
//! begins (HOP), or where it ends (CUMULATE, whose windows begin alike).
//!
//! ```text
//!  panes      |--0--|--1--|--2--|--3--|
//!  HOP        [  slide 1, size 2  )           windows 0: panes 0 1, 1: panes 1 2, ...
//!  CUMULATE   [--1--)                         windows 1: pane 0, 2: panes 0 1, ...
//!             [-----2----)
//! ```
//!
//! Times are microseconds. What lies beyond the ends of time saturates: no row is there.

use crate::plan::event_time::Step;
use crate::types::time::WINDOWS_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    Hop,
    Cumulate,
}

/// The windows that a row is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManyWindows {
    pub kind: WindowKind,
    /// From one window to the next: the slide, or the step.
    pub step_us: i64,
    pub size_us: i64,
    pub offset_us: i64,
    pub pane_us: i64,
}

impl ManyWindows {
    /// `None` for windows that are an error for every row: too many, or of CUMULATE with a size that
    /// is no multiple of the step.
    pub fn new(
        kind: WindowKind,
        step_us: i64,
        size_us: i64,
        offset_us: i64,
    ) -> Option<ManyWindows> {
        let pane_us = match kind {
            WindowKind::Hop => gcd(step_us, size_us),
            WindowKind::Cumulate => step_us,
        };
        let whole = kind == WindowKind::Hop || size_us % step_us == 0;
        let valid = whole && size_us / step_us < WINDOWS_MAX;
        valid.then_some(ManyWindows { kind, step_us, size_us, offset_us, pane_us })
    }

    /// The first window that a pane is in.
    pub fn first_of(&self, pane: i64) -> i64 {
        match self.kind {
            WindowKind::Hop => self
                .floor(pane.saturating_sub(self.size_us), self.step_us)
                .saturating_add(self.step_us),
            WindowKind::Cumulate => pane.saturating_add(self.step_us),
        }
    }

    /// The last window that a pane is in; before the first one where the pane is in none: between
    /// windows that do not touch.
    pub fn last_of(&self, pane: i64) -> i64 {
        match self.kind {
            WindowKind::Hop => self.floor(pane, self.step_us),
            WindowKind::Cumulate => self.floor(pane, self.size_us).saturating_add(self.size_us),
        }
    }

    /// How many windows a pane is in.
    pub fn count_of(&self, pane: i64) -> usize {
        let distance = self.last_of(pane).saturating_sub(self.first_of(pane));
        if distance < 0 { 0 } else { (distance / self.step_us) as usize + 1 }
    }

    /// The first window that is not before this time.
    pub fn not_before(&self, time: i64) -> i64 {
        let floor = self.floor(time, self.step_us);
        if floor < time { floor.saturating_add(self.step_us) } else { floor }
    }

    /// The panes of a window: from the first one on, before the second.
    pub fn span(&self, window: i64) -> (i64, i64) {
        match self.kind {
            WindowKind::Hop => (window, window.saturating_add(self.size_us)),
            WindowKind::Cumulate => (self.floor(window.saturating_sub(1), self.size_us), window),
        }
    }

    /// From a pane to the first window that a change of it concerns.
    pub fn steps(&self) -> Vec<Step> {
        match self.kind {
            WindowKind::Hop => hop_steps(self.step_us, self.size_us, self.offset_us)
                .map_or(vec![], |steps| steps.to_vec()),
            WindowKind::Cumulate => cumulate_steps(self.step_us, self.offset_us).to_vec(),
        }
    }

    fn floor(&self, time: i64, stride_us: i64) -> i64 {
        Step::Bin { stride_us, origin_us: self.offset_us }.apply(time)
    }
}

/// From a time to the start of the first window of HOP that has not ended then: the first that begins
/// after the time less the size.
pub fn hop_steps(slide_us: i64, size_us: i64, offset_us: i64) -> Option<[Step; 3]> {
    Some([
        Step::Shift { months: 0, us: size_us.checked_neg()? },
        Step::Bin { stride_us: slide_us, origin_us: offset_us },
        Step::Shift { months: 0, us: slide_us },
    ])
}

/// From a time to the end of the first window of CUMULATE that has not ended then.
pub fn cumulate_steps(step_us: i64, offset_us: i64) -> [Step; 2] {
    [Step::Bin { stride_us: step_us, origin_us: offset_us }, Step::Shift { months: 0, us: step_us }]
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of each pane, as spans.
    fn spans(windows: ManyWindows, pane: i64) -> Vec<(i64, i64)> {
        let (first, count) = (windows.first_of(pane), windows.count_of(pane) as i64);
        (0..count).map(|n| windows.span(first + n * windows.step_us)).collect()
    }

    #[test]
    fn panes_are_in_the_windows_that_hold_them() {
        let hop = ManyWindows::new(WindowKind::Hop, 4, 10, 1).expect("windows");
        assert_eq!(hop.pane_us, 2);
        assert_eq!(spans(hop, 1), [(-7, 3), (-3, 7), (1, 11)]);
        assert_eq!(spans(hop, 3), [(-3, 7), (1, 11)]);
        let apart = ManyWindows::new(WindowKind::Hop, 10, 4, 0).expect("windows");
        assert_eq!(spans(apart, 2), [(0, 4)]);
        assert_eq!(spans(apart, 6), []);
        let growing = ManyWindows::new(WindowKind::Cumulate, 5, 15, 5).expect("windows");
        assert_eq!(spans(growing, 5), [(5, 10), (5, 15), (5, 20)]);
        assert_eq!(spans(growing, 15), [(5, 20)]);
        assert_eq!(spans(growing, 0), [(-10, 5)]);
        assert_eq!([-1, 0, 1, 5].map(|time| growing.not_before(time)), [0, 0, 5, 5]);
    }

    #[test]
    fn windows_that_are_an_error_for_every_row_have_no_panes() {
        assert_eq!(ManyWindows::new(WindowKind::Cumulate, 3, 10, 0), None);
        assert_eq!(ManyWindows::new(WindowKind::Hop, 1, WINDOWS_MAX, 0), None);
    }
}
