// Decisions and their reasons, as fracnet/inference/image_predictor.py and
// fracnet/evaluation/conformal.py give them.

const NEVER = -1; // the limit of a class that is never ruled out
const TINY = 2.2250738585072014e-308;
const OOD_REASON = "out of distribution";
const UNREADABLE_VIEW = "a view cannot be read";
const NO_READABLE_VIEW = "no view can be read";

export const MAX_NAMES = 6; // of fracnet/utils/text.py

const joined = (parts, limit = MAX_NAMES) => parts.length > limit
  ? `${parts.slice(0, limit).join(", ")} and ${parts.length - limit} more`
  : [parts.slice(0, -1).join(", "), parts[parts.length - 1]].filter(Boolean).join(" and ");
const listed = (...parts) => parts.filter(Boolean).join("; ");
const largest = (prob) => prob.indexOf(Math.max(...prob));

// {choice, uncertain, reason} for probabilities and, of two classes, the log-odds of the second.
export const decided = (prob, odds, { cut, limits }) => {
  const choice = cut === null ? largest(prob) : Number(odds > cut);
  const possible = prob.map((value, c) => value >= limits.values[c]);
  const uncertain = !(possible[choice] && possible.filter(Boolean).length === 1);
  return { choice, uncertain, reason: uncertain ? reason(possible, choice, limits) : "" };
};

const reason = (notBelow, choice, { values, classes }) => {
  const never = values.map((value) => value === NEVER);
  const possible = notBelow.map((is, c) => is && !never[c]);
  if (never.every(Boolean)) return "validation is too small for any confident decision";
  const others = classes.filter((_, c) => never[c] && c !== choice);
  if (possible.some((is, c) => is && c !== choice)) {
    return !possible[choice] && !never[choice] ? "another class fits better" : "more than one class fits";
  }
  const them = others.length === 1 ? "it" : "them";
  const few = others.length ? `validation has too few of ${joined(others, others.length)} to rule ${them} out` : "";
  return possible[choice] || never[choice] ? few : listed("no class fits", few);
};

export const evidence = (prob, choice, { values, classes }) => {
  const named = (chosen, relation) => {
    const first = [...chosen].sort((a, b) => prob[b] - prob[a]).slice(0, 2);
    const more = chosen.length > 2 ? ` and ${chosen.length - 2} more` : "";
    return first.map((c) =>
      `${classes[c]} ${prob[c].toFixed(3)} ${relation} its limit ${values[c].toFixed(3)}`).join(", ") + more;
  };
  const others = classes.map((_, c) => c).filter((c) => c !== choice);
  const never = others.filter((c) => values[c] === NEVER);
  const possible = others.filter((c) => values[c] !== NEVER && prob[c] >= values[c]);
  const reasons = listed(
    prob[choice] < values[choice] && named([choice], "is below"),
    possible.length && named(possible, "is not below"),
    never.length && `validation has too few of ${joined(never.map((c) => classes[c]))} for a limit`);
  if (reasons) return reasons;
  const closest = others.reduce((a, b) => (values[b] - prob[b] < values[a] - prob[a] ? b : a));
  const text = named([closest], "is below");
  return others.length === 1 ? text : `every other class is below its limit, e.g. ${text}`;
};

// An answer as the server gives it. image: what `readImage` gives; outputs: the graph's, or null.
export const answerOf = (path, image, outputs, { classes, levels, decisions, ood }) => {
  const { patient, study, error } = image;
  const answer = { path, patient, study, error, why: error, probabilities: null };
  const empty = { likeliest: null, log_odds: null, decision: null, uncertain: null, reason: null, ood_score: null, ood: null };
  if (error) return { ...empty, ...answer };
  const prob = [...outputs.probabilities];
  const odds = (outputs.logits[1] - outputs.logits[0]) / decisions.temperature;
  const { choice, uncertain, reason: why } = decided(prob, odds, levels.image);
  const isOod = Boolean(ood) && outputs.ood_score[0] > 1;
  return {
    ...answer,
    likeliest: classes[largest(prob)],
    probabilities: Object.fromEntries(classes.map((name, c) => [name, prob[c]])),
    log_odds: classes.length === 2 ? odds : null,
    decision: classes[choice],
    uncertain: uncertain || isOod,
    reason: listed(why, isOod && OOD_REASON),
    ood_score: ood ? outputs.ood_score[0] : null,
    ood: ood ? isOod : null,
    why: evidence(prob, choice, levels.image.limits),
  };
};

// A row for each study that the answers name, as `by_study` gives it.
export const studyRows = (answers, model) => {
  const groups = new Map();
  for (const answer of answers.filter(({ study }) => study !== null)) {
    const key = JSON.stringify([answer.patient, answer.study]);
    groups.set(key, [...(groups.get(key) || []), answer]);
  }
  return [...groups.values()].map((views) => studyRow(views, model));
};

const studyRow = (views, { classes, levels, decisions, ood }) => {
  const readable = views.filter(({ error }) => !error);
  const [unreadable, flagged] = [views.length - readable.length, views.filter((view) => view.ood).length];
  const row = {
    study: views[0].study, patient: views[0].patient, views: readable.length, unreadable,
    ood: ood && readable.length ? flagged : null,
    probabilities: null, log_odds: null, decision: null, uncertain: null, reason: "",
  };
  let why = "";
  let uncertain = false;
  if (readable.length) {
    const { prob, odds } = combined(readable, classes, decisions.views);
    row.probabilities = Object.fromEntries(classes.map((name, c) => [name, prob[c]]));
    if (classes.length === 2) row.log_odds = odds;
    if (levels.study) {
      const result = decided(prob, odds, levels.study);
      row.decision = classes[result.choice];
      [why, uncertain] = [result.reason, result.uncertain];
    }
  }
  if (!levels.study) return row;
  // What is wrong with one view may be what the others do not show.
  row.uncertain = uncertain || flagged > 0 || unreadable > 0;
  row.reason = listed(why, flagged && OOD_REASON, unreadable && (readable.length ? UNREADABLE_VIEW : NO_READABLE_VIEW));
  return row;
};

// Probabilities of the views together and, of two classes, the log-odds of the second.
const combined = (views, classes, rule) => {
  const all = views.map(({ probabilities }) => classes.map((name) => probabilities[name]));
  const column = (c) => all.map((prob) => prob[c]);
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const join = rule === "max" ? (values, c) => Math[c ? "max" : "min"](...values)
    : (values) => sum(values) / values.length;
  const prob = classes.map((_, c) => join(column(c), c));
  if (classes.length > 2) return { prob, odds: null };
  // Of a probability that is 0 as a float, the exact log, by which very confident networks differ.
  const logs = prob.map((value, c) => {
    if (value > TINY) return Math.log(value);
    const exact = views.map(({ log_odds: odds }) => {
      const signed = c ? odds : -odds;
      return signed < 0 ? signed - Math.log1p(Math.exp(signed)) : -Math.log1p(Math.exp(-signed));
    });
    if (rule === "max") return join(exact, c);
    const top = Math.max(...exact);
    return top + Math.log(sum(exact.map((log) => Math.exp(log - top)))) - Math.log(exact.length);
  });
  return { prob, odds: logs[1] - logs[0] };
};
