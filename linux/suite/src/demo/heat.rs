//! The heat map: for how many rounds each page has been idle, and its picture.

const COLUMNS: usize = 32;
const ROWS: usize = 8;
const SHADES: [char; 5] = ['█', '▓', '▒', '░', '·'];
const TOUCHED: char = '█';
const UNTOUCHED: char = '·';
/// Pages that were never seen young are as idle as can be.
const NEVER: usize = usize::MAX / 2;

/// Idle ages of pages, in rounds.
pub struct Heat {
    idle_rounds: Vec<usize>,
}

impl Heat {
    /// Explains the picture.
    pub const LEGEND: &str = "█ young, ▓ ▒ ░ idle for 1, 2, 3 rounds, · longer";

    /// Starts with nothing known.
    pub fn new(page_count: usize) -> Self {
        Self { idle_rounds: vec![NEVER; page_count] }
    }

    /// Returns how many pages a cell stands for.
    pub fn pages_per_cell(&self) -> usize {
        self.idle_rounds.len() / (COLUMNS * ROWS)
    }

    /// Takes in the result of one age.
    pub fn update(&mut self, young: &[bool]) {
        for (idle, &young) in self.idle_rounds.iter_mut().zip(young) {
            *idle = if young { 0 } else { *idle + 1 };
        }
    }

    /// A cell is as warm as its warmest page.
    fn cell(&self, pages: &[usize]) -> char {
        let idle = pages.iter().min().copied().unwrap_or(NEVER);
        SHADES[idle.min(SHADES.len() - 1)]
    }

    /// Prints the map beside one of what was touched.
    pub fn print_beside(&self, touched: &[bool]) {
        let per_cell = self.pages_per_cell();
        let heat: Vec<char> =
            self.idle_rounds.chunks(per_cell).map(|pages| self.cell(pages)).collect();
        let shown = |pages: &[bool]| if pages.contains(&true) { TOUCHED } else { UNTOUCHED };
        let windows: Vec<char> = touched.chunks(per_cell).map(shown).collect();
        for (left, right) in heat.chunks(COLUMNS).zip(windows.chunks(COLUMNS)) {
            let [left, right] = [left, right].map(|cells| cells.iter().collect::<String>());
            println!("  |{left}|    |{right}|");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cool_by_one_shade_a_round() {
        let mut heat = Heat::new(COLUMNS * ROWS);
        let mut young = vec![false; COLUMNS * ROWS];
        young[3] = true;
        heat.update(&young);
        assert_eq!(heat.cell(&heat.idle_rounds[3..4]), '█');
        assert_eq!(heat.cell(&heat.idle_rounds[4..5]), '·');
        heat.update(&vec![false; COLUMNS * ROWS]);
        assert_eq!(heat.cell(&heat.idle_rounds[3..4]), '▓');
        assert_eq!(heat.cell(&heat.idle_rounds[2..5]), '▓', "the warmest page of a cell");
    }
}
