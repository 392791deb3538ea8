// Questions: for those who have said who they are, and only after it has been said what will happen.

import { el, setText } from './dom.js';

// A dialog that resolves to what was entered, or to null.
export function ask({ title, lines, field, confirm, danger = false }) {
  return new Promise((resolve) => {
    const input = field && el('input', { id: 'dialog-field', ...field.attributes, value: field.value ?? '' });
    const error = el('p', { class: 'notice bad', role: 'alert', hidden: true });
    const close = (answer) => { dialog.close(); dialog.remove(); resolve(answer); };
    // A browser may close it without asking: whoever answers nothing has said no. Only the first answer counts.
    const submit = (event) => {
      event.preventDefault();
      const wrong = field?.check?.(input.value);
      error.hidden = !wrong;
      setText(error, wrong);
      if (!wrong) close(input ? input.value : true);
    };
    const dialog = el('dialog', { 'aria-labelledby': 'dialog-title', oncancel: (event) => { event.preventDefault(); close(null); }, onclose: () => close(null) },
      el('form', { onsubmit: submit }, el('h2', { id: 'dialog-title' }, title), lines.map((line) => el('p', null, line)),
        input && el('div', { class: 'field' }, el('label', { for: 'dialog-field' }, field.label), input), error,
        el('div', { class: 'buttons' }, el('button', { type: 'button', class: 'quiet', onclick: () => close(null) }, 'Cancel'),
          el('button', { type: 'submit', class: danger ? 'primary danger' : 'primary' }, confirm))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

export const whole = (low, high) => (text) => (/^\d+$/.test(text) && Number(text) >= low && Number(text) <= high ? '' : `a whole number from ${low} to ${high}`);
