//! Pictures of memory, in characters: from the first byte to the last in rows, as text is read.

const COLUMNS: usize = 32;
const ROWS: usize = 8;
const CELLS: usize = COLUMNS * ROWS;
/// From nothing to all.
const SHADES: [char; 5] = ['·', '░', '▒', '▓', '█'];

/// Draws pages that each have a share of `most`: a cell is as dark as its pages are on average.
pub fn draw(pages: &[u64], most: u64) -> Vec<char> {
    let shade = |pages: &[u64]| {
        let (sum, all) = (pages.iter().sum::<u64>(), most * pages.len() as u64);
        let steps = SHADES.len() as u64 - 1;
        // Rounded up: only nothing is drawn as nothing.
        SHADES[(sum * steps).div_ceil(all).min(steps) as usize]
    };
    pages.chunks(pages.len() / CELLS).map(shade).collect()
}

/// Draws yes and no.
pub fn draw_flags(pages: impl Iterator<Item = bool>) -> Vec<char> {
    draw(&pages.map(u64::from).collect::<Vec<_>>(), 1)
}

/// Returns how many pages a cell stands for.
pub fn pages_per_cell(page_count: usize) -> usize {
    page_count / CELLS
}

/// Prints two pictures beside each other, each with its title.
pub fn print(left: (&str, &[char]), right: (&str, &[char])) {
    println!("   {:<COLUMNS$}      {}", left.0, right.0);
    for (left, right) in left.1.chunks(COLUMNS).zip(right.1.chunks(COLUMNS)) {
        let [left, right] = [left, right].map(|cells| cells.iter().collect::<String>());
        println!("  |{left}|    |{right}|");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_as_dark_as_their_pages() {
        let mut pages = vec![0; CELLS * 4];
        pages[..4].copy_from_slice(&[8, 8, 8, 8]);
        pages[4..8].copy_from_slice(&[0, 0, 0, 1]);
        pages[8..12].copy_from_slice(&[8, 8, 0, 0]);
        pages[12..16].copy_from_slice(&[8, 8, 8, 1]);
        assert_eq!(draw(&pages, 8)[..5], ['█', '░', '▒', '█', '·']);
    }

    #[test]
    fn pictures_fit_a_terminal() {
        const { assert!(2 * (COLUMNS + 2) + 6 <= 80) }
        assert_eq!(draw_flags((0..CELLS * 64).map(|page| page < 64))[..2], ['█', '·']);
    }
}
