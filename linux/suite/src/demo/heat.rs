//! The heat map: a picture of the idle ages that the firmware keeps.

use verdigris_abi::WORKING_SET_BUCKET_STARTS;

use crate::working_set::Histogram;

const COLUMNS: usize = 32;
const ROWS: usize = 8;
const SHADES: [char; 5] = ['█', '▓', '▒', '░', '·'];
const TOUCHED: char = '█';
const UNTOUCHED: char = '·';
const GONE: char = ' ';

/// Explains the picture.
pub const LEGEND: &str = "█ touched in this round, ▓ ▒ ░ idle for 1, 2, 3, · longer";

/// Returns how many pages a cell stands for.
pub fn pages_per_cell(page_count: usize) -> usize {
    page_count / (COLUMNS * ROWS)
}

/// Draws idle ages: a cell is as warm as its warmest page.
pub fn heat(ages: &[u8]) -> Vec<char> {
    let shade = |ages: &[u8]| {
        let idle = ages.iter().min().copied().unwrap_or(u8::MAX);
        SHADES[usize::from(idle).min(SHADES.len() - 1)]
    };
    ages.chunks(pages_per_cell(ages.len())).map(shade).collect()
}

/// Draws which cells have a page that is so.
pub fn cells(pages: &[bool]) -> Vec<char> {
    let shown = |pages: &[bool]| if pages.contains(&true) { TOUCHED } else { UNTOUCHED };
    pages.chunks(pages_per_cell(pages.len())).map(shown).collect()
}

/// Blanks the cells that have no page any more.
pub fn blank(picture: &mut [char], gone: &[bool]) {
    let cells = gone.chunks(pages_per_cell(gone.len()));
    for (cell, _) in picture.iter_mut().zip(cells).filter(|(_, pages)| !pages.contains(&false)) {
        *cell = GONE;
    }
}

/// Prints two pictures beside each other.
pub fn print(left: &[char], right: &[char]) {
    for (left, right) in left.chunks(COLUMNS).zip(right.chunks(COLUMNS)) {
        let [left, right] = [left, right].map(|cells| cells.iter().collect::<String>());
        println!("  |{left}|    |{right}|");
    }
}

/// Describes a histogram: the buckets that have pages, the long idle together.
pub fn describe(histogram: &Histogram) -> String {
    let longest = SHADES.len() - 1;
    let mut parts: Vec<_> = (0..longest)
        .map(|bucket| format!("{}: {}", WORKING_SET_BUCKET_STARTS[bucket], histogram[bucket]))
        .collect();
    parts.push(format!("more: {}", histogram[longest..].iter().sum::<u64>()));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELLS: usize = COLUMNS * ROWS;

    #[test]
    fn a_cell_is_as_warm_as_its_warmest_page() {
        let mut ages = vec![9; CELLS * 2];
        (ages[0], ages[3], ages[4], ages[5]) = (2, 0, 255, 4);
        assert_eq!(heat(&ages)[..4], ['▒', '█', '·', '·']);
    }

    #[test]
    fn a_cell_is_blank_once_all_of_it_is_gone() {
        let mut picture = vec!['·'; CELLS];
        let mut gone = vec![false; CELLS * 2];
        (gone[0], gone[1], gone[2]) = (true, true, true);
        blank(&mut picture, &gone);
        assert_eq!(picture[..3], [' ', '·', '·']);
    }

    #[test]
    fn histograms_are_told_from_the_young_on() {
        let mut histogram = [0; 16];
        (histogram[0], histogram[3], histogram[4], histogram[15]) = (7, 1, 2, 3);
        assert_eq!(describe(&histogram), "0: 7, 1: 0, 2: 0, 3: 1, more: 5");
    }
}
