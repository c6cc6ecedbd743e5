"use strict";
// What answers the page: the server. A page without one has an engine.js of its own, with the same
// functions: fracnet/serving/web.
(() => {
  const request = async (path, options) => {
    let response;
    try {
      response = await fetch(path, options);
    } catch {
      throw new Error("The server does not answer. Is it still running?");
    }
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error || `The server answered ${response.status}.`);
    return answer;
  };

  // The grey levels of a PNG: {width, height, values}.
  const levels = (address) => new Promise((resolve, reject) => {
    const image = document.createElement("img");
    image.onload = () => {
      const { width, height } = image;
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      const pen = canvas.getContext("2d", { willReadFrequently: true });
      pen.drawImage(image, 0, 0);
      const { data } = pen.getImageData(0, 0, width, height);
      resolve({ width, height, values: Uint8Array.from({ length: width * height }, (_, i) => data[4 * i]) });
    };
    image.onerror = () => reject(new Error("A picture of the answer cannot be shown."));
    image.src = address;
  });

  window.fracnetEngine = {
    // What `describe_model` gives.
    model: () => request("api/model"),
    // Makes sure that the model answers as it should: a sentence on that. The server has.
    check: async () => "",
    // An answer on a file; `image` and `heatmap` are {width, height, values: uint8}.
    predict: async (file, signal) => {
      const body = new FormData();
      body.append("files", file, file.webkitRelativePath || file.name);
      const [answer] = (await request("api/predict", { method: "POST", body, signal })).images;
      for (const name of ["image", "heatmap"]) {
        if (answer[name]) answer[name] = await levels(answer[name]);
      }
      return answer;
    },
    // Decisions on the studies that the answers name.
    studies: async (images) => (await request("api/studies", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ images }),
    })).studies,
  };
})();
