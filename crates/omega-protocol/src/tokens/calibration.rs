//! How far our estimates of one model's input are off, learned from the usage its provider reports.
//!
//! An estimate counts bytes; what a byte is worth differs by language, by tokenizer and by what a provider adds of its
//! own. Each answer shows the true count beside the estimate, and the mean of that ratio corrects the next estimate.
//! The mean is bounded on every side: a single answer moves it by an eighth at most, and no number of them moves it
//! further than eightfold.
//!
//! Integers, so that the same answers in the same order always leave the same ratio.

use super::{InputEstimate, InputKind};

/// One, as a ratio: ratios count in 65,536ths.
const ONE: u64 = 1 << SHIFT;
const SHIFT: u32 = 16;
/// The furthest a correction goes, and the inverse of the least. Text of 1.5 bytes per token (base64) is 2.4 times its
/// estimate and text of 8.8 (Hindi) 0.4 times (see the measurements in `tokens.rs`); what is beyond 8 is another kind
/// of request, and no property of the tokenizer.
const FURTHEST: u64 = 8;
/// An answer counts for at most this many times what is believed so far, and for at least the inverse: one odd answer
/// is noise, several of them are news.
const STEP: u64 = 2;
/// What the newest answer weighs, as a fraction of the mean, once this many are known: seven eighths of what is
/// believed rest on the last 16 (`1 - (7/8)^16`).
const WEIGHT: u64 = 8;
/// Smaller estimates teach nothing: there the framing of messages, which is a guess, outweighs the text. Judgement.
const LEARNED_FROM: u64 = 50;

/// The corrections of one model at one provider, apart for each [`InputKind`]: images estimated too dearly say nothing
/// about text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calibration {
    text: Ratio,
    counted: Ratio,
    media: Ratio,
    unseen: Ratio,
}

impl Calibration {
    /// A request of this estimate was answered, and its provider reported what the model read.
    ///
    /// - `reported`: input tokens, cached ones included. 0 says that nothing was reported, and teaches nothing.
    ///
    /// Estimates under 50 tokens teach nothing either.
    pub fn learn(&mut self, estimate: InputEstimate, reported: u64) {
        if estimate.tokens >= LEARNED_FROM && reported > 0 {
            self.ratio_mut(estimate.kind).learn(estimate.tokens, reported);
        }
    }

    /// The estimate as far as experience corrects it, in tokens: at least an eighth of it and at most eight times it,
    /// never 0 unless the estimate is, and the estimate itself while nothing is known.
    ///
    /// ```
    /// # use omega_protocol::{Calibration, InputEstimate, InputKind};
    /// let mut calibration = Calibration::default();
    /// let estimate = InputEstimate { tokens: 1_000, kind: InputKind::Text };
    /// assert_eq!(calibration.apply(estimate), 1_000);
    /// calibration.learn(estimate, 1_200);
    /// assert_eq!(calibration.apply(estimate), 1_100);
    /// ```
    pub fn apply(&self, estimate: InputEstimate) -> u64 {
        let ratio = match estimate.kind {
            InputKind::Text => &self.text,
            InputKind::Counted => &self.counted,
            InputKind::Media => &self.media,
            InputKind::Unseen => &self.unseen,
        };
        ratio.of(estimate.tokens)
    }

    fn ratio_mut(&mut self, kind: InputKind) -> &mut Ratio {
        match kind {
            InputKind::Text => &mut self.text,
            InputKind::Counted => &mut self.counted,
            InputKind::Media => &mut self.media,
            InputKind::Unseen => &mut self.unseen,
        }
    }
}

/// A running mean of reported over estimated tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ratio {
    /// In [`ONE`]ths; between an eighth and eight.
    mean: u64,
    /// How much the mean weighs beside the next answer, counted in answers. The belief before the first one, that
    /// estimates are right, weighs as much as an answer.
    weight: u64,
}

impl Default for Ratio {
    fn default() -> Self {
        Self { mean: ONE, weight: 1 }
    }
}

impl Ratio {
    /// `estimated` is not 0.
    fn learn(&mut self, estimated: u64, reported: u64) {
        let (least, most) = (self.mean / STEP, self.mean * STEP);
        let (least, most) = (least.max(ONE / FURTHEST), most.min(ONE * FURTHEST));
        let answer = (u128::from(reported) << SHIFT) / u128::from(estimated);
        let answer = u64::try_from(answer).unwrap_or(u64::MAX).clamp(least, most);
        let weight = self.weight + 1;
        self.mean = (self.mean * self.weight + answer) / weight;
        self.weight = weight.min(WEIGHT - 1);
    }

    fn of(&self, estimated: u64) -> u64 {
        let tokens = (u128::from(estimated) * u128::from(self.mean)).div_ceil(u128::from(ONE));
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tokens: u64) -> InputEstimate {
        InputEstimate { tokens, kind: InputKind::Text }
    }

    /// After answers that reported so many tokens for estimates of 1,000.
    fn taught(reported: impl IntoIterator<Item = u64>) -> Calibration {
        let mut calibration = Calibration::default();
        reported.into_iter().for_each(|reported| calibration.learn(text(1_000), reported));
        calibration
    }

    #[test]
    fn an_estimate_stands_until_an_answer_corrects_it() {
        assert_eq!(Calibration::default().apply(text(1_234)), 1_234);
        assert_eq!(taught([1_500]).apply(text(1_000)), 1_250);
    }

    #[test]
    fn it_converges_to_what_is_reported_from_above_and_from_below() {
        for truth in [130, 400, 900, 1_000, 1_800, 3_000, 7_900] {
            let learned = taught(std::iter::repeat_n(truth, 64)).apply(text(1_000));
            assert!(learned.abs_diff(truth) <= 1 + truth / 50, "{learned} for {truth}");
        }
    }

    #[test]
    fn three_times_the_estimate_is_nearly_reached_after_eight_answers() {
        let steps: Vec<u64> =
            (1..=8).map(|answers| taught(std::iter::repeat_n(3_000, answers)).apply(text(1_000))).collect();
        assert_eq!(steps, [1_500, 2_000, 2_250, 2_400, 2_500, 2_572, 2_625, 2_672]);
    }

    #[test]
    fn a_noisy_model_is_learned_by_its_mean() {
        let learned = taught((0..100).map(|at| if at % 2 == 0 { 1_200 } else { 1_600 }));
        assert!((1_350..1_450).contains(&learned.apply(text(1_000))), "{learned:?}");
    }

    #[test]
    fn one_outlier_moves_it_by_an_eighth_at_most_and_is_forgotten() {
        let mut calibration = taught(std::iter::repeat_n(1_000, 64));
        calibration.learn(text(1_000), u64::MAX);
        assert_eq!(calibration.apply(text(1_000)), 1_125);
        (0..24).for_each(|_| calibration.learn(text(1_000), 1_000));
        assert!(calibration.apply(text(1_000)) <= 1_006, "{calibration:?}");
        let mut calibration = taught(std::iter::repeat_n(1_000, 64));
        calibration.learn(text(1_000), 1);
        assert_eq!(calibration.apply(text(1_000)), 938);
    }

    #[test]
    fn it_never_goes_beyond_eightfold_nor_below_an_eighth() {
        let (high, low) =
            (taught(std::iter::repeat_n(u64::MAX, 1_000)), taught(std::iter::repeat_n(1, 1_000)));
        assert_eq!(high.apply(text(1_000)), 8_000);
        assert_eq!(low.apply(text(1_000)), 125);
    }

    #[test]
    fn an_estimate_is_never_corrected_to_nothing() {
        let low = taught(std::iter::repeat_n(1, 1_000));
        assert_eq!((low.apply(text(0)), low.apply(text(1)), low.apply(text(9))), (0, 1, 2));
    }

    #[test]
    fn small_estimates_and_unreported_usage_teach_nothing() {
        let mut calibration = Calibration::default();
        calibration.learn(text(49), 500);
        calibration.learn(text(0), 500);
        calibration.learn(text(1_000), 0);
        assert_eq!(calibration, Calibration::default());
        calibration.learn(text(50), 100);
        assert_eq!(calibration.apply(text(50)), 75);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut calibration = Calibration::default();
        for _ in 0..100 {
            calibration.learn(text(u64::MAX), u64::MAX);
            assert_eq!(calibration.apply(text(u64::MAX)), u64::MAX);
            calibration.learn(text(50), u64::MAX);
            calibration.learn(text(u64::MAX), 1);
        }
        let high = taught(std::iter::repeat_n(u64::MAX, 100));
        assert_eq!(high.apply(text(u64::MAX)), u64::MAX, "it saturates");
    }

    #[test]
    fn kinds_of_requests_are_learned_apart() {
        let mut calibration = Calibration::default();
        let kinds = [InputKind::Text, InputKind::Counted, InputKind::Media, InputKind::Unseen];
        for (kind, reported) in kinds.into_iter().zip([1_100, 1_200, 500, 2_000]) {
            calibration.learn(InputEstimate { tokens: 1_000, kind }, reported);
        }
        let learned = kinds.map(|kind| calibration.apply(InputEstimate { tokens: 1_000, kind }));
        assert_eq!(learned, [1_050, 1_100, 750, 1_500]);
    }
}
